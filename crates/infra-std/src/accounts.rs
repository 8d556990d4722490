//! What operations on users and groups share.

use infra_core::facts::DiffError;
use infra_core::operation::Misuse;

/// The value of an argument that is true where it is not given.
pub fn yes() -> bool {
    true
}

/// Checks the name of a user or group: what useradd(8) takes, and nothing that breaks the files they stand in.
///
/// # Errors
/// [`Misuse`] that shows the name.
pub fn check_name(what: &str, name: &str) -> Result<(), Misuse> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = name.strip_suffix('$').unwrap_or(name).chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let number = name.chars().all(|c| c.is_ascii_digit());
    if first && rest && !number && name.len() <= 32 {
        return Ok(());
    }
    Err(Misuse::new(format!("`{name}` is no name of a {what}"))
        .hint("a name has up to 32 letters, digits and `_`, `-`, `.`, begins with a letter or `_`, and is not a number"))
}

/// Checks a field of passwd(5), which may hold neither a colon nor a line break.
///
/// # Errors
/// [`Misuse`] that names the argument.
pub fn check_field(argument: &str, value: Option<&str>) -> Result<(), Misuse> {
    match value {
        Some(value) if value.contains([':', '\n', '\r', '\0']) => {
            Err(Misuse::new(format!("`{argument}` has a colon or a line break in it, which passwd(5) cannot hold")))
        }
        _ => Ok(()),
    }
}

/// The refusal where the host lacks a tool.
pub fn missing_tool(tool: &str) -> DiffError {
    DiffError::refused_with_hint(
        format!("there is no {tool} among the commands that this user can run"),
        "without root it is often not in PATH: use _sudo; on Alpine it comes with the package shadow, elsewhere with passwd or shadow-utils",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_accounts() {
        for name in ["deploy", "_apt", "www-data", "a.b", "host$", "0day"] {
            assert!(check_name("user", name).is_ok(), "{name}");
        }
        for name in ["", "-r", "a b", "a:b", "1000", "ä", "a/b", "$", "a$b"] {
            assert!(check_name("user", name).is_err(), "{name}");
        }
        assert!(check_field("comment", Some("a:b")).is_err());
        assert!(check_field("comment", Some("Ann, Room 4")).is_ok());
    }
}
