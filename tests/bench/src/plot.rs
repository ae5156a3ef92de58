//! A small plot of how cost grows, as SVG: two panels, both axes logarithmic.

use std::fmt::Write as _;

use crate::figures::grouped;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
/// Around a panel: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (56.0, 16.0, 36.0, 40.0);
/// Told apart also by those who do not tell red from green.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// One line: its name, and a figure for each size.
pub type Series<'a> = (&'a str, &'a [(usize, f64)]);

/// A panel: its title and its lines.
pub struct Panel<'a> {
    pub title: &'a str,
    pub series: Vec<Series<'a>>,
}

/// A range of an axis, from one power of ten to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    from: i32,
    to: i32,
}

impl Scale {
    /// The least that holds all of these; what is not positive has no place on it.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut range: Option<(f64, f64)> = None;
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            range = Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
        }
        let (low, high) = range?;
        let from = low.log10().floor() as i32;
        Some(Self { from, to: (high.log10().ceil() as i32).max(from + 1) })
    }

    /// Where a value is, from 0 to 1.
    fn at(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }
}

/// The panels side by side.
pub fn svg(panels: &[Panel<'_>]) -> String {
    let width = WIDTH * panels.len() as f64;
    let longest = panels.iter().map(|panel| panel.series.len()).max().unwrap_or_default();
    let height = HEIGHT + 18.0 * longest as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        // Writing into a string does not fail.
        let _ = writeln!(text, "<g transform=\"translate({} 0)\">", WIDTH * index as f64);
        draw(&mut text, panel);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, panel: &Panel<'_>) {
    let (left, right, top, bottom) = MARGIN;
    let _ = writeln!(text, "<text x=\"{left}\" y=\"20\" font-weight=\"bold\">{}</text>", escaped(panel.title));
    let points = || panel.series.iter().flat_map(|(_, points)| points.iter());
    let (Some(sizes), Some(values)) =
        (Scale::of(points().map(|(size, _)| *size as f64)), Scale::of(points().map(|(_, value)| *value)))
    else {
        return;
    };
    let x = |size: f64| left + sizes.at(size) * (WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - values.at(value) * (HEIGHT - top - bottom);
    for tick in sizes.ticks() {
        let (at, low, label) = (x(tick), HEIGHT - bottom, grouped(tick as usize));
        let _ = writeln!(text, "<path d=\"M{at:.1} {top}V{low:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(text, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", low + 16.0);
    }
    for tick in values.ticks() {
        let at = y(tick);
        let _ = writeln!(text, "<path d=\"M{left} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - right);
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", left - 6.0, at + 4.0);
    }
    for (index, (name, points)) in panel.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let shown: Vec<(f64, f64)> =
            points.iter().filter(|(_, value)| *value > 0.0).map(|(size, value)| (x(*size as f64), y(*value))).collect();
        let line: Vec<String> = shown.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in shown {
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let at = HEIGHT + 18.0 * index as f64;
        let _ =
            writeln!(text, "<rect x=\"{left}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", at - 9.0);
        let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{at:.1}\">{}</text>", left + 16.0, escaped(name));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_holds_all_values_and_has_a_tick_for_each_power_of_ten() {
        let scale = Scale::of([1000.0, 100_000.0, 10_000.0].into_iter()).unwrap();
        assert_eq!(scale, Scale { from: 3, to: 5 });
        assert_eq!(scale.ticks().collect::<Vec<_>>(), [1000.0, 10_000.0, 100_000.0]);
        assert_eq!((scale.at(1000.0), scale.at(10_000.0), scale.at(100_000.0)), (0.0, 0.5, 1.0));
        assert_eq!(Scale::of([0.02, 7.0].into_iter()), Some(Scale { from: -2, to: 1 }));
        assert_eq!(Scale::of([10.0].into_iter()), Some(Scale { from: 1, to: 2 }), "one value has a range too");
        assert_eq!(Scale::of([0.0, f64::NAN, -1.0].into_iter()), None);
    }

    #[test]
    fn every_point_is_within_its_panel() {
        let points = [(1000, 4.0), (10_000, 41.0), (100_000, 470.0)];
        let nothing = [(1000, 0.0)];
        let drawing = svg(&[
            Panel { title: "seconds", series: vec![("cold <all>", &points[..]), ("nothing", &nothing[..])] },
            Panel { title: "empty", series: Vec::new() },
        ]);
        assert_eq!(drawing.matches("<circle").count(), 3);
        assert!(drawing.contains("cold &lt;all&gt;") && drawing.contains("empty"));
        for circle in drawing.lines().filter(|line| line.starts_with("<circle")) {
            let number = |name: &str| {
                let rest = circle.split_once(&format!("{name}=\"")).unwrap().1;
                rest.split_once('"').unwrap().0.parse::<f64>().unwrap()
            };
            assert!((0.0..=WIDTH).contains(&number("cx")) && (0.0..=HEIGHT).contains(&number("cy")), "{circle}");
        }
    }
}
