//! Reports and operations, and what holds for every route.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use event_schemas::{Actor, ActorKind};
use identity::verifier::Role;
use support::{Shop, order, paid, person, placed, start};

async fn with_sales() -> Shop {
    let shop = start().await;
    let ann = person(ActorKind::Customer, 1);
    for (number, quantity, country, at) in [
        (1, 2, "GB", "2026-01-01T10:00:00Z"),
        (2, 1, "FR", "2026-01-01T23:59:59Z"),
        (3, 4, "GB", "2026-01-02T00:00:00Z"),
    ] {
        shop.append(
            order(number),
            &ann,
            [placed(number, 1, quantity, country, at.parse().unwrap())],
        )
        .await;
        shop.append(
            order(number),
            &Actor::system("x"),
            [paid(number, 500 * i64::from(quantity))],
        )
        .await;
    }
    // Not paid: no sale.
    let at = "2026-01-02T10:00:00Z".parse().unwrap();
    shop.tell(order(4), &ann, [placed(4, 1, 9, "GB", at)]).await;
    shop
}

#[tokio::test]
async fn sales_are_summed_by_day_sku_and_country() {
    let shop = with_sales().await;
    let staff = shop.token(Role::Staff, 9).await;
    let report = async |query: &str| {
        shop.get(&format!("/v1/reports/sales?{query}"), &staff)
            .await
            .json()
    };
    let rows = |report: &serde_json::Value| -> Vec<(String, i64)> {
        let row = |row: &serde_json::Value| {
            (
                row["key"].as_str().unwrap().to_owned(),
                row["revenue"].as_i64().unwrap(),
            )
        };
        report["rows"].as_array().unwrap().iter().map(row).collect()
    };
    let both = "from=2026-01-01&to=2026-01-02";
    let by_day = report(both).await;
    assert_eq!(
        rows(&by_day),
        [("2026-01-01".to_owned(), 1_500), ("2026-01-02".to_owned(), 2_000)]
    );
    assert_eq!(
        (&by_day["total"]["orders"], &by_day["currency"]),
        (&3.into(), &"GBP".into())
    );
    let by_country = report(&format!("{both}&by=country")).await;
    assert_eq!(
        rows(&by_country),
        [("FR".to_owned(), 500), ("GB".to_owned(), 3_000)]
    );
    let by_sku = report(&format!("{both}&by=sku&country=GB")).await;
    assert_eq!(rows(&by_sku), [("MUG-1".to_owned(), 3_000)]);
    assert_eq!(
        rows(&report("from=2026-01-01&to=2026-01-01").await),
        [("2026-01-01".to_owned(), 1_500)]
    );
    assert_eq!(rows(&report("from=2025-01-01&to=2025-12-31").await), []);

    for query in [
        "",
        "from=2026-01-01",
        "from=2026-01-02&to=2026-01-01",
        "from=2020-01-01&to=2026-01-01",
        "from=x&to=y",
        "from=2026-01-01&to=2026-01-02&by=moon",
        "from=2026-01-01&to=2026-01-02&country=Britain",
        "from=-009999-01-01&to=9999-12-31",
    ] {
        let reply = shop.get(&format!("/v1/reports/sales?{query}"), &staff).await;
        reply.expect_problem(400, "malformed-request");
    }
    let customer = shop.token(Role::Customer, 1).await;
    let reply = shop.get(&format!("/v1/reports/sales?{both}"), &customer).await;
    assert_eq!(
        reply.expect_problem(403, "forbidden")["permission"],
        "report.read"
    );
}

#[tokio::test]
async fn projections_say_how_far_they_are() {
    let shop = with_sales().await;
    let (staff, customer) = (
        shop.token(Role::Staff, 9).await,
        shop.token(Role::Customer, 1).await,
    );
    shop.get("/ops/projections", &customer)
        .await
        .expect_problem(403, "forbidden");
    let state = shop.get("/ops/projections", &staff).await.json();
    assert_eq!(state["head"], 7);
    let views = state["projections"].as_array().unwrap();
    assert_eq!(views.len(), projections::VIEW_NAMES.len());
    assert!(
        views.iter().all(|view| view["lag"] == 0 && view["position"] == 7),
        "{views:?}"
    );
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page_for_those_who_may_see_operations() {
    let shop = start().await;
    for order in ["o-1", "o-2", "o-3"] {
        shop.park("orders.g1", order).await;
    }
    shop.park("sagas", "o-1").await;
    let (staff, customer) = (
        shop.token(Role::Staff, 9).await,
        shop.token(Role::Customer, 1).await,
    );
    shop.get("/ops/dead-letters", &customer)
        .await
        .expect_problem(403, "forbidden");
    let (mut listed, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = shop
            .get(&format!("/ops/dead-letters{query}"), &staff)
            .await
            .json();
        for item in page["items"].as_array().unwrap() {
            listed.push(item["id"].as_str().unwrap().to_owned());
            assert_eq!(
                (&item["letters"], &item["first"]["reason"]),
                (&1.into(), &"broken".into())
            );
        }
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?limit=3&cursor={cursor}");
    }
    let ids = [
        "orders.g1:order/o-1",
        "orders.g1:order/o-2",
        "orders.g1:order/o-3",
        "sagas:order/o-1",
    ];
    assert_eq!(listed, ids);
    let page = shop
        .get("/ops/dead-letters?subscriber=sagas", &staff)
        .await
        .json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    shop.get("/ops/dead-letters?cursor=nonsense", &staff)
        .await
        .expect_problem(400, "malformed-request");
}

#[tokio::test]
async fn every_route_but_the_catalogue_needs_a_good_token_and_refuses_what_it_does_not_know() {
    let shop = start().await;
    let admin = shop.token(Role::Admin, 9).await;
    let mut walked = 0;
    for (template, item) in shop.paths.as_object().unwrap() {
        let path = template
            .replace("{id}", "01890a5d-ac96-774b-bcce-b302099a8057")
            .replace("{sku}", "MUG-1");
        // What is asked for by POST is walked with the whole API.
        let Some(operation) = item.get("get") else {
            continue;
        };
        assert!(
            operation["operationId"].is_string() && operation["tags"].is_array(),
            "{template}"
        );
        assert!(
            operation["summary"].is_string() || operation["description"].is_string(),
            "{template}"
        );
        walked += 1;
        for bad in ["nonsense", "eyJhbGciOiJub25lIn0.e30."] {
            shop.get(&path, bad).await.expect_problem(401, "unauthorized");
        }
        if !template.starts_with("/v1/products") {
            let reply = shop.ask(&path, None, &[]).await;
            reply.expect_problem(401, "unauthorized");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"omisys\""));
        }
        if operation["parameters"]
            .as_array()
            .is_some_and(|list| list.iter().any(|item| item["in"] == "query"))
        {
            let reply = shop.get(&format!("{path}?unheard_of=1"), &admin).await;
            reply.expect_problem(400, "malformed-request");
        }
    }
    assert_eq!(walked, 12);
    shop.get("/v1/nothing", &admin)
        .await
        .expect_problem(404, "not-found");
}
