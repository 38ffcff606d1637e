//! E-mail addresses and passwords: checked when made, never printed.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

/// The text is no acceptable e-mail address or password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(&'static str);

/// An e-mail address in lower case. It lives in the accounts table and nowhere else: no event, no log line.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Email(String);

impl Email {
    /// Checks the form that matters to us (one `@`, a name before and a host after it, no blanks, at most 254 bytes);
    /// whether it reaches anybody only a letter can tell.
    pub fn new(text: &str) -> Result<Self, ValueError> {
        const FORM: ValueError =
            ValueError("an e-mail address looks like name@host and has at most 254 characters");
        let text = text.trim().to_lowercase();
        let (name, host) = text.split_once('@').ok_or(FORM)?;
        let plain = |part: &str| {
            !part.is_empty()
                && !part
                    .chars()
                    .any(|c| c.is_whitespace() || c.is_control() || "@,;<>\"()[]\\".contains(c))
        };
        let dots = host.starts_with(['.', '-']) || host.ends_with(['.', '-']) || host.contains("..");
        if text.len() > 254 || !plain(name) || !plain(host) || dots {
            return Err(FORM);
        }
        Ok(Self(text))
    }

    /// The address. Hand it to the database or its owner only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

/// A password as somebody typed it. Forgotten (overwritten) when dropped.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Password(Zeroizing<String>);

/// The most characters that are hashed.
const PASSWORD_MAX_CHARS: usize = 128;

impl Password {
    /// Takes 1 to 128 characters.
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() || text.chars().count() > PASSWORD_MAX_CHARS {
            return Err(ValueError("a password has at most 128 characters"));
        }
        Ok(Self(text))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TryFrom<String> for Password {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A password that may be set: 10 to 128 characters of any kind, since length is what helps (NIST SP 800-63B,
/// section 3.1.1). What was set under another rule still logs in.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct NewPassword(Password);

impl NewPassword {
    /// Checks the length and takes it.
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let password = Password::new(text)?;
        if password.0.chars().count() < 10 {
            return Err(ValueError("a password has at least 10 characters"));
        }
        Ok(Self(password))
    }

    pub(crate) fn into_inner(self) -> Password {
        self.0
    }
}

impl TryFrom<String> for NewPassword {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_mail_addresses() {
        assert_eq!(
            Email::new(" Ann@Example.COM ").unwrap().as_str(),
            "ann@example.com"
        );
        for good in ["a@b", "ann.o'neil+shop@mail.example.co.uk", "ånn@bücher.example"] {
            assert!(Email::new(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a@.b",
            "a@b..c",
            "<a@b>",
            "a@b\r\nBcc: c@d",
            &long,
        ] {
            assert!(Email::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let password = Password::new("correct horse").unwrap();
        let email = Email::new("ann@example.com").unwrap();
        assert_eq!(format!("{password:?} {email:?}"), "Password(..) Email(..)");
        assert!(NewPassword::new("short").is_err());
        assert!(Password::new("x".repeat(129)).is_err());
    }
}
