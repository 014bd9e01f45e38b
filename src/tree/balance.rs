//! Where a page that is too long is cut. Pure.
//!
//! Whoever writes keys in order (a copy of a directory, the extents of a file) should leave full
//! pages behind, whoever writes them in any order pages with room. So a page is cut at the end
//! where it grows if it grows at one place, else into even pieces.

use std::ops::Range;

/// How the entries of a page grew in number last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Growth {
    /// At no one place.
    #[default]
    Anywhere,
    /// A run of entries that ends before this one; the next will likely come right there.
    Rising(usize),
    /// A run of entries that begins with this one; the next will likely come just before.
    Falling(usize),
}

/// Encoded bytes of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// As the first of a page, with what this adds to the entry after it.
    pub first: usize,
    /// After the entry before it.
    pub next: usize,
}

/// What a page may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Bytes of a page without entries.
    pub header: usize,
    /// Bytes of a page.
    pub bytes: usize,
    /// So many entries may always share a page.
    pub entries: usize,
}

/// Cuts entries into pages: ranges that follow each other, none empty, each within the limit.
pub(super) fn cut(costs: &[Cost], limit: Limit, growth: Growth) -> Vec<Range<usize>> {
    assert!(!costs.is_empty() && limit.entries > 0);
    let all = 0..costs.len();
    // Whole pages to where it grows, the rest for itself: filling up the first part's last page
    // with the rest would have it cut again and again there.
    let (grown, rest) = match growth {
        Growth::Anywhere => return even(costs, limit, all),
        Growth::Rising(end) => {
            let end = end.min(costs.len());
            (fill_rising(costs, limit, 0..end), even(costs, limit, end..costs.len()))
        }
        Growth::Falling(start) => {
            let start = start.min(costs.len());
            (even(costs, limit, 0..start), fill_falling(costs, limit, start..costs.len()))
        }
    };
    let mut pieces = grown;
    for piece in rest {
        match pieces.last_mut() {
            // But no two short pages side by side.
            Some(last) if bytes(costs, limit, last.start..piece.end) <= merge_bytes(limit.bytes) => {
                last.end = piece.end
            }
            _ => pieces.push(piece),
        }
    }
    pieces
}

/// Adjacent pages that together take at most this much become one.
pub(super) fn merge_bytes(page_bytes: usize) -> usize {
    page_bytes / 3 * 2
}

fn bytes(costs: &[Cost], limit: Limit, range: Range<usize>) -> usize {
    match costs[range].split_first() {
        Some((first, others)) => limit.header + first.first + others.iter().map(|cost| cost.next).sum::<usize>(),
        None => limit.header,
    }
}

/// Full pages from the left.
fn fill_rising(costs: &[Cost], limit: Limit, range: Range<usize>) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let end = fill(costs, limit, start..range.end, limit.bytes);
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// Full pages from the right.
fn fill_falling(costs: &[Cost], limit: Limit, range: Range<usize>) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut end = range.end;
    while end > range.start {
        let mut start = end - 1;
        let mut others = 0;
        while start > range.start {
            others += costs[start].next;
            let grown = limit.header + costs[start - 1].first + others;
            if grown > limit.bytes && end - start >= limit.entries {
                break;
            }
            start -= 1;
        }
        pieces.push(start..end);
        end = start;
    }
    pieces.reverse();
    pieces
}

/// As few pages as possible, or a few more, about equally full.
fn even(costs: &[Cost], limit: Limit, range: Range<usize>) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = range.start;
    let mut remaining = bytes(costs, limit, range.clone());
    while start < range.end {
        let pages = remaining.div_ceil(limit.bytes).max(1);
        let end = fill(costs, limit, start..range.end, remaining.div_ceil(pages));
        remaining = remaining.saturating_sub(costs[start..end].iter().map(|cost| cost.next).sum());
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// The end of a page that begins where the range does: within the limit, and as close to `target`
/// as it gets.
fn fill(costs: &[Cost], limit: Limit, range: Range<usize>, target: usize) -> usize {
    let mut filled = limit.header + costs[range.start].first;
    let mut end = range.start + 1;
    while end < range.end {
        let next = costs[end].next;
        let is_full = filled + next > limit.bytes || filled + next / 2 > target;
        if is_full && end - range.start >= limit.entries {
            break;
        }
        filled += next;
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths(entries: usize, growth: Growth) -> Vec<usize> {
        let costs = vec![Cost { first: 10, next: 10 }; entries];
        cut(&costs, Limit { header: 0, bytes: 100, entries: 1 }, growth).iter().map(Range::len).collect()
    }

    #[test]
    fn cuts_where_it_grows() {
        assert_eq!(lengths(11, Growth::Anywhere), [6, 5]);
        assert_eq!(lengths(25, Growth::Anywhere), [8, 9, 8]);
        assert_eq!(lengths(11, Growth::Rising(11)), [10, 1]);
        assert_eq!(lengths(35, Growth::Rising(35)), [10, 10, 10, 5]);
        assert_eq!(lengths(11, Growth::Falling(0)), [1, 10]);
        assert_eq!(lengths(35, Growth::Falling(0)), [5, 10, 10, 10]);
        assert_eq!(lengths(11, Growth::Rising(4)), [4, 7], "in the middle: the rest for itself");
        assert_eq!(lengths(11, Growth::Falling(4)), [4, 7]);
        assert_eq!(lengths(14, Growth::Rising(11)), [10, 4], "short pages are put together");
        assert_eq!(lengths(8, Growth::Rising(4)), [4, 4]);
    }

    proptest! {
        #[test]
        fn pieces_are_whole_and_within_the_limit(
            costs in prop::collection::vec((1usize..60, 0usize..30), 1..100),
            entries in 1usize..3,
            growth in prop_oneof![
                Just(Growth::Anywhere),
                (0usize..100).prop_map(Growth::Rising),
                (0usize..100).prop_map(Growth::Falling),
            ],
        ) {
            let costs: Vec<_> = costs.into_iter().map(|(next, more)| Cost { first: next + more, next }).collect();
            let limit = Limit { header: 5, bytes: 100, entries };
            let pieces = cut(&costs, limit, growth);
            let mut end = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.start, end);
                prop_assert!(!piece.is_empty());
                end = piece.end;
                prop_assert!(piece.len() <= entries || bytes(&costs, limit, piece.clone()) <= limit.bytes, "{:?}", piece);
            }
            prop_assert_eq!(end, costs.len());
            if costs.len() > entries && bytes(&costs, limit, 0..costs.len()) > limit.bytes {
                prop_assert!(pieces.len() > 1);
                // Inner pages: each cut has to leave fewer pages than there were children.
                prop_assert!(entries == 1 || pieces.len() < costs.len());
            }
        }
    }
}
