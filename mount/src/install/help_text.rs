//! Lists as `--help` has them, for man.
//!
//! A line that ends with a colon is a heading; a line that begins with spaces is a word and, after two
//! spaces or more, what it means, which goes on in lines that begin with more of them; all else is text.

use clap_mangen::roff::{Roff, bold, roman};

/// Adds the text of one list.
pub fn add(roff: &mut Roff, text: &str) {
    let mut is_in_list = false;
    for line in text.lines() {
        match line.strip_prefix("  ").map(|line| (line.starts_with(' '), line.trim())) {
            Some((false, line)) => {
                let (word, meaning) = line.split_once("  ").unwrap_or((line, ""));
                roff.control("TP", []);
                roff.text([bold(word)]);
                // A paragraph of its own would take the next word for it.
                roff.text([roman(match meaning.trim() {
                    "" => "see mount(8)",
                    meaning => meaning,
                })]);
                is_in_list = true;
            }
            Some((true, line)) => {
                roff.text([roman(line)]);
            }
            None if line.ends_with(':') => {
                roff.control("SS", [line.trim_end_matches(':')]);
                is_in_list = false;
            }
            None => {
                if is_in_list {
                    roff.control("PP", []);
                    is_in_list = false;
                }
                roff.text([roman(line)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart() {
        let mut roff = Roff::new();
        add(&mut roff, "Options:\n  ro, rw   nothing, or all\n           and more\n  bare\nFrom fstab these\n.too.");
        let text = roff.to_roff();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                ".SS Options",
                ".TP",
                r"\fBro, rw\fR",
                "nothing, or all",
                "and more",
                ".TP",
                r"\fBbare\fR",
                "see mount(8)",
                ".PP",
                "From fstab these",
                r"\&.too."
            ]
        );
    }
}
