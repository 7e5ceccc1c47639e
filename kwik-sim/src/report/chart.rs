//! Marks on a page: text that cannot break out of its place, numbers people read, positions in time.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// Text as HTML shows it, in an element or in a quoted attribute.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char if char.is_control() => f.write_char(' ')?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// A moment as a chart counts it: milliseconds, without superfluous digits.
pub(super) struct Ms(pub(super) Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Number(self.0.as_secs_f64() * 1e3).fmt(f)
    }
}

/// A number with at most three digits after the point.
pub(super) struct Number(pub(super) f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 1e3).round() / 1e3)
    }
}

/// Three digits and a unit.
fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", units.get(unit).copied().unwrap_or_default())
}

pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Of bits a second.
pub(super) fn rate(bits: f64) -> String {
    scaled(bits, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// A length of time.
pub(super) fn span(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        let ms = span.as_secs_f64() * 1e3;
        return format!("{} ms", Number((ms * 10.0).round() / 10.0));
    }
    format!("{} s", Number(span.as_secs_f64()))
}

/// A moment since the world began, always with milliseconds.
pub(super) fn moment(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}

/// Where a moment is, in percent of the width.
pub(super) fn percent(at: Duration, duration: Duration) -> Number {
    Number(at.as_secs_f64() / duration.as_secs_f64().max(1e-9) * 100.0)
}

/// At which moments to draw lines: between 6 and 16 of them, at round numbers.
pub(super) fn ticks(duration: Duration) -> Vec<Duration> {
    let steps =
        (0..).flat_map(|power| [1, 2, 5].map(|digit| Duration::from_micros(digit * 10_u64.saturating_pow(power))));
    let step = steps.take(60).find(|step| duration.as_nanos() / step.as_nanos() <= 14).unwrap_or(duration);
    let mut ticks = Vec::new();
    let mut at = Duration::ZERO;
    while at <= duration && ticks.len() < 16 {
        ticks.push(at);
        at += step.max(Duration::from_nanos(1));
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.00 kB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(12_340_000), "12.3 MB");
        assert_eq!(rate(100e6), "100 Mbit/s");
        assert_eq!(span(Duration::from_micros(20_300)), "20.3 ms");
        assert_eq!(span(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(Ms(Duration::from_nanos(1_234_567)).to_string(), "1.235");
    }

    #[test]
    fn text_stays_in_its_place() {
        let text = Text("</title><script>\"a\" & 'b'\n\u{0}</script>").to_string();
        assert_eq!(text, "&lt;/title&gt;&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;  &lt;/script&gt;");
    }

    #[test]
    fn ticks_are_few_and_round() {
        for nanos in [0, 1, 999, 12_345, 1_000_000, 7_300_000_000, 86_400_000_000_000] {
            let ticks = ticks(Duration::from_nanos(nanos));
            assert!((1..=16).contains(&ticks.len()), "{nanos} ns have {} ticks", ticks.len());
        }
        assert_eq!(ticks(Duration::from_secs(10)).get(1), Some(&Duration::from_secs(1)));
    }
}
