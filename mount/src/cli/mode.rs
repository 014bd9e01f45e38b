//! `0660`

/// Reads permission bits in octal, for a file that is no program.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => Err(format!("'{text}' is no mode: write it in octal, like 0660")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("0600", 0o600), ("660", 0o660), ("0", 0), ("00777", 0o777)] {
            assert_eq!(parse_mode(text), Ok(mode));
        }
        for text in ["", "1000", "0668", "+600", "-1", "rw", "0o600"] {
            assert!(parse_mode(text).unwrap_err().contains("0660"), "{text}");
        }
    }
}
