//! The catalogue. Public; callers with `product.read_all` see what is not published too.

pub(crate) mod get;
pub(crate) mod list;

use identity::verifier::{Caller, MaybeCaller, Permission};
use projections::products::{ProductStatus, ProductView};

use crate::read::Scope;

fn sees_all(caller: MaybeCaller) -> bool {
    caller
        .0
        .is_some_and(|caller: Caller| caller.may(Permission::ProductReadAll))
}

fn is_visible(product: &ProductView, sees_all: bool) -> bool {
    sees_all || product.status == ProductStatus::Published
}

fn scope(caller: MaybeCaller) -> Scope {
    if caller.0.is_some() {
        Scope::TheCaller
    } else {
        Scope::Everybody
    }
}
