//! Mutations of texts.

/// A pseudorandom generator (xorshift64*): a run can be repeated with its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 to `n` - 1; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value)
            .unwrap_or_default()
            .checked_rem(n)
            .unwrap_or_default()
    }

    pub(crate) fn choose<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Larger texts are cut. Now and then the largest `ConfigMap` is allowed.
const MAX_LENGTH: usize = 40_000;
const MAX_LARGE_LENGTH: usize = 1_250_000;

const TOKENS: [&str; 60] = [
    "- ",
    "? ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: *a",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "!a!x ",
    "!!int ",
    "%TAG !a! x\n",
    "---\n",
    "...\n",
    "\n",
    "\r\n",
    "  ",
    "\t",
    "\\",
    "\u{feff}",
    "\u{2028}",
    "\0",
    "é",
    "0x1f",
    "1e308",
    "-1",
    "1:30",
    ".inf",
    "~",
    "config:",
    "scenarios:",
    "phases:",
    "ensure:",
    "environments:",
    "flow:",
    "loop:",
    "conditions:",
    "expression:",
    "(",
    ")",
    "not ",
    " and ",
    " or ",
    " in (",
    "-",
    "/",
    ".p95",
    "http.",
    "a-b",
    "null",
    "0,0,0,",
    "36000",
    "9007199254740992",
];

/// Makes a text of one or two others with a few mutations.
pub(crate) fn mutate(one: String, other: &str, random: &mut Random) -> String {
    let is_large = random.below(200) == 0;
    let limit = if is_large {
        MAX_LARGE_LENGTH
    } else {
        MAX_LENGTH
    };
    let mut text = one;
    for _ in 0..=random.below(6) {
        text = mutate_once(&text, other, limit, random);
        cut(&mut text, limit);
    }
    text
}

fn mutate_once(text: &str, other: &str, limit: usize, random: &mut Random) -> String {
    let (from, to) = range(text, random);
    let (before, part, after) = (&text[..from], &text[from..to], &text[to..]);
    let times = 1 << random.below(14);
    let token = *random.choose(&TOKENS);
    match random.below(12) {
        0 => format!("{before}{after}"),
        1 => format!("{before}{token}{after}"),
        2 => format!("{before}{token}{part}{token}{after}"),
        3 => format!("{before}{}{part}{after}", repeat(token, times, limit)),
        4 => format!("{before}{}{after}", repeat(part, times, limit)),
        5 => {
            let (open, close) = *random.choose(&[
                ("[", "]"),
                ("{", "}"),
                ("(", ")"),
                ("'", "'"),
                ("{a: ", "}"),
            ]);
            let (open, close) = (repeat(open, times, limit), repeat(close, times, limit));
            format!("{before}{open}{part}{close}{after}")
        }
        6 => {
            let (from, to) = range(other, random);
            format!("{before}{}{after}", &other[from..to])
        }
        7 => with_lines(text, random, |lines, at, _| {
            lines.insert(at, lines[at].clone());
        }),
        8 => with_lines(text, random, |lines, at, to| lines.swap(at, to)),
        // Indents a block.
        9 => with_lines(text, random, |lines, at, to| {
            for line in &mut lines[at.min(to)..at.max(to)] {
                line.insert_str(0, "  ");
            }
        }),
        // Numbers the copies of a line, so that keys and anchors differ.
        10 => with_lines(text, random, |lines, at, _| {
            let line = lines[at].clone();
            let copies = times.min(limit / (line.len() + 8));
            let numbered = |n: usize| {
                line.replacen(':', &format!("{n}:"), 1)
                    .replacen("&a", &format!("&a{n}"), 1)
            };
            lines.splice(at..at, (0..copies).map(numbered));
        }),
        _ => {
            let c = char::from_u32(u32::try_from(random.below(0x250)).unwrap_or_default());
            format!("{before}{}{after}", c.unwrap_or('x'))
        }
    }
}

fn repeat(part: &str, times: usize, limit: usize) -> String {
    part.repeat(times.min(limit / (part.len() + 1)))
}

fn with_lines(
    text: &str,
    random: &mut Random,
    change: impl FnOnce(&mut Vec<String>, usize, usize),
) -> String {
    let mut lines: Vec<_> = text.split('\n').map(ToOwned::to_owned).collect();
    let (at, to) = (random.below(lines.len()), random.below(lines.len()));
    change(&mut lines, at, to);
    lines.join("\n")
}

/// A part of a text, on the borders of characters. Mostly a short one.
fn range(text: &str, random: &mut Random) -> (usize, usize) {
    let from = boundary(text, random.below(text.len() + 1));
    let length = 1 << random.below(12);
    let to = boundary(text, from + random.below(length));
    (from, to.max(from))
}

/// The last border of characters that is not after a position.
fn boundary(text: &str, at: usize) -> usize {
    let borders = (0..=at.min(text.len())).rev();
    borders
        .into_iter()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default()
}

fn cut(text: &mut String, limit: usize) {
    text.truncate(boundary(text, limit));
}
