//! The plot: for each work the ratio to each peer, with its interval and the mark that is to be reached.

use super::report::Row;
use super::work::Name;
use anyhow::Context;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const WIDTH: i32 = 960;
const ROW: i32 = 44;
const TOP: i32 = 74;
const BOTTOM: i32 = 64;
/// Where the names of works end, and the scale begins and ends.
const NAMES: i32 = 300;
const LEFT: i32 = 320;
const RIGHT: i32 = WIDTH - 110;
/// A scale that ends less than so many times from where it begins has room for more marks.
const FINE: f64 = 8.0;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(32, 32, 32);
const FAINT: RGBColor = RGBColor(215, 215, 215);
const PEERS: [(Name, RGBColor); 2] =
    [(Name::Nginx, RGBColor(0, 110, 60)), (Name::Varnish, RGBColor(30, 90, 180))];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A scale on which equal ratios are equally far apart.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// That all of these fit on, and one.
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            values.fold((1.0_f64, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        Self { low: (low / 1.1).min(0.8), high: (high * 1.1).max(1.5) }
    }

    fn x(self, value: f64) -> i32 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        #[expect(clippy::cast_possible_truncation, reason = "pixels")]
        let offset = (share * f64::from(RIGHT - LEFT)).round() as i32;
        LEFT + offset
    }

    /// Round numbers on it.
    fn marks(self) -> Vec<f64> {
        let coarse = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let fine = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0];
        let all: &[f64] = if self.high / self.low < FINE { &fine } else { &coarse };
        all.iter().copied().filter(|mark| (self.low..=self.high).contains(mark)).collect()
    }
}

/// Draws it into a file.
pub fn draw(path: &Path, rows: &[Row], caption: &str) -> anyhow::Result<()> {
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.ratios.is_empty()).collect();
    let ends = rows.iter().flat_map(|row| &row.ratios).flat_map(|ratio| {
        let reach = ratio.goal.map_or(1.0, |goal| goal.reach);
        [ratio.estimate.low, ratio.estimate.high, reach]
    });
    let scale = Scale::over(ends);
    let height = TOP + BOTTOM + ROW * i32::try_from(rows.len()).context("few rows")?;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    frame(&area, scale, height, caption)?;
    for (row, number) in rows.iter().zip(0..) {
        one(&area, scale, row, TOP + ROW * number + ROW / 2)?;
    }
    area.present()?;
    Ok(())
}

fn frame(area: &Area<'_>, scale: Scale, height: i32, caption: &str) -> anyhow::Result<()> {
    write(area, "freshet beside its peers; above 1 it is ahead", (20, 22), HPos::Left, (17.0, INK))?;
    write(area, caption, (20, height - 16), HPos::Left, (11.0, INK))?;
    let bottom = height - BOTTOM + 6;
    for mark in scale.marks() {
        let (x, is_one) = (scale.x(mark), (mark - 1.0).abs() < 1e-9);
        let line = ShapeStyle {
            color: (if is_one { INK } else { FAINT }).to_rgba(),
            filled: false,
            stroke_width: 1,
        };
        area.draw(&PathElement::new(vec![(x, TOP - 6), (x, bottom)], line))?;
        write(area, &format!("{mark}"), (x, bottom + 12), HPos::Center, (12.0, INK))?;
    }
    let mut x = LEFT;
    for (name, colour) in PEERS {
        area.draw(&Circle::new((x, 48), 4, colour.filled()))?;
        write(area, &format!("to {}", name.word()), (x + 10, 48), HPos::Left, (13.0, INK))?;
        x += 110;
    }
    area.draw(&PathElement::new(vec![(x, 40), (x, 56)], INK.stroke_width(3)))?;
    write(area, "to be reached by the whole interval", (x + 10, 48), HPos::Left, (13.0, INK))
}

fn one(area: &Area<'_>, scale: Scale, row: &Row, middle: i32) -> anyhow::Result<()> {
    write(area, row.title, (NAMES, middle), HPos::Right, (13.0, INK))?;
    let several = row.ratios.len() > 1;
    for (ratio, number) in row.ratios.iter().zip(0..) {
        let y = if several { middle - 9 + 18 * number } else { middle };
        let colour = PEERS.iter().find(|(name, _)| *name == ratio.to).map_or(INK, |(_, colour)| *colour);
        let (low, high) = (scale.x(ratio.estimate.low), scale.x(ratio.estimate.high));
        area.draw(&PathElement::new(vec![(low, y), (high, y)], colour.stroke_width(3)))?;
        area.draw(&Circle::new((scale.x(ratio.estimate.median), y), 4, colour.filled()))?;
        if let Some(goal) = ratio.goal {
            let x = scale.x(goal.reach);
            area.draw(&PathElement::new(vec![(x, y - 7), (x, y + 7)], INK.stroke_width(3)))?;
        }
        let median = format!("{:.2}", ratio.estimate.median);
        write(area, &median, (RIGHT + 20, y), HPos::Left, (12.0, colour))?;
    }
    Ok(())
}

/// `at` is the middle of the line's height, and its beginning, middle or end.
fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    side: HPos,
    (pixels, colour): (f64, RGBColor),
) -> anyhow::Result<()> {
    // plotters takes 1.24 pixels for the unit of its sizes.
    let style = (FONT, pixels * 1.24).into_font().color(&colour).pos(Pos::new(side, VPos::Center));
    Ok(area.draw_text(text, &style, at)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;
    use crate::peers::contest::{Sample, Series};
    use crate::peers::work::WORKS;
    use std::time::Duration;

    #[test]
    fn the_scale_holds_everything_and_one() {
        let scale = Scale::over([0.5, 4.0].into_iter());
        assert!(scale.x(0.5) > LEFT && scale.x(4.0) < RIGHT);
        assert!(
            scale.x(2.0) - scale.x(1.0) == scale.x(4.0) - scale.x(2.0),
            "equal ratios are equally far apart"
        );
        assert!(scale.marks().iter().any(|mark| (mark - 1.0).abs() < 1e-9));
        assert!(Scale::over(std::iter::empty()).high > 1.0);
    }

    #[test]
    fn a_plot_names_all_works_and_ratios() {
        let series = |name, figure| {
            let outcome = Outcome { took: Duration::from_secs(1), requests: 1, ..Outcome::empty() };
            Series { name, samples: vec![Sample { figure, outcome, cpu: 1.0 }] }
        };
        let works = WORKS.iter().filter(|work| work.cores == 1);
        let rows: Vec<Row> = works
            .map(|work| Row::of(work, &[series(Name::Freshet, 1.37), series(Name::Nginx, 1.0)]))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.svg");
        draw(&path, &rows, "a machine").unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        assert!(
            rows.iter().all(|row| svg.contains(row.title))
                && svg.contains("1.37")
                && svg.contains("a machine")
        );
    }
}
