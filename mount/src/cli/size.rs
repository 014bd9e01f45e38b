//! Sizes as people write them: `4096`, `64K`, `2G`.

/// Bytes. The suffixes K, M, G and T stand for powers of 1024; `KiB`, `KB`, `k`... are the same.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("'{text}' is not a size: write a number, with K, M, G or T for powers of 1024")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("'{text}' is not a size: write a number, like 4096, 64M or 1G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1k", 1024), ("64M", 64 << 20), ("2GiB", 2 << 30), ("1TB", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1X", "1 M", "99999999999999999999", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
