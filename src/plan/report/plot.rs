//! A line plot as SVG: time on the x axis.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt;

const SIZE: (u32, u32) = (960, 280);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(32, 32, 32);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(130, 130, 130),
    RGBColor(230, 159, 0),
];
/// Pixels from the top to the legend, and of one of its entries for each letter.
const LEGEND: i32 = 12;
const LETTER: i32 = 7;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Time and value, in order of time.
    pub points: Vec<(f64, f64)>,
    /// A bound rather than something measured: thin.
    pub bound: bool,
}

impl Line {
    /// Through these points.
    #[must_use]
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, bound: false }
    }

    /// A bound that doesn't change.
    #[must_use]
    pub fn bound(name: &str, value: f64, (from, to): (f64, f64)) -> Self {
        Self { name: name.to_owned(), points: vec![(from, value), (to, value)], bound: true }
    }
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Of the time, with its unit.
    pub x: String,
    /// Of the values, with their unit.
    pub y: String,
    /// A moment that is marked, with its name.
    pub mark: Option<(f64, String)>,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// It can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error("a plot can't be drawn: {0}")]
pub struct NoPlot(String);

impl NoPlot {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Plot {
    /// As an SVG element.
    ///
    /// # Errors
    /// The library's own.
    pub fn svg(&self) -> Result<String, NoPlot> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            self.draw(&area)?;
            area.present().map_err(NoPlot::new)?;
        }
        Ok(svg)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), NoPlot> {
        area.fill(&WHITE).map_err(NoPlot::new)?;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (from, to) = points()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), (x, _)| (from.min(*x), to.max(*x)));
        let (from, to) = if from < to { (from, to) } else { (0.0, 1.0) };
        let most = points().map(|(_, y)| *y).fold(0.0, f64::max).max(1e-9) * 1.08;
        let mut chart = ChartBuilder::on(area)
            .margin_top(44)
            .margin_right(16)
            .x_label_area_size(38)
            .y_label_area_size(64)
            .build_cartesian_2d(from..to, 0.0..most)
            .map_err(NoPlot::new)?;
        chart
            .configure_mesh()
            .x_desc(&*self.x)
            .y_desc(&*self.y)
            .x_labels(13)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style((FONT, 12))
            .axis_desc_style((FONT, 12))
            .draw()
            .map_err(NoPlot::new)?;
        if let Some((at, _)) = &self.mark {
            let line = LineSeries::new([(*at, 0.0), (*at, most)], INK.stroke_width(1));
            chart.draw_series(line).map_err(NoPlot::new)?;
        }
        for (line, colour) in self.coloured() {
            let width = if line.bound { 1 } else { 2 };
            let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(width));
            chart.draw_series(series).map_err(NoPlot::new)?;
        }
        self.legend(area)
    }

    fn coloured(&self) -> impl Iterator<Item = (&Line, RGBColor)> {
        self.lines.iter().zip(COLOURS.into_iter().cycle())
    }

    fn legend(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), NoPlot> {
        let write = |text: &str, x: i32, y: i32, size: f64| {
            let style = (FONT, size).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw_text(text, &style, (x, y)).map_err(NoPlot::new)
        };
        write(&self.title, 16, LEGEND, 18.0)?;
        let mut x = 64;
        let mark = self.mark.iter().map(|(_, name)| (name, INK));
        for (name, colour) in self.coloured().map(|(line, colour)| (&line.name, colour)).chain(mark) {
            let line =
                PathElement::new(vec![(x, LEGEND + 20), (x + 18, LEGEND + 20)], colour.stroke_width(3));
            area.draw(&line).map_err(NoPlot::new)?;
            write(name, x + 24, LEGEND + 20, 14.0)?;
            x += 40 + LETTER * i32::try_from(name.chars().count()).unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_what_it_draws() {
        let plot = Plot {
            title: "egress <us>".into(),
            x: "hours".into(),
            y: "Gbit/s".into(),
            mark: Some((1.0, "push".into())),
            lines: vec![
                Line::new("nodes", vec![(0.0, 1.0), (2.0, 3.0)]),
                Line::bound("capacity", 4.0, (0.0, 2.0)),
            ],
        };
        let svg = plot.svg().unwrap();
        for text in ["egress &lt;us&gt;", "hours", "Gbit/s", "push", "nodes", "capacity"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let empty = Plot { lines: Vec::new(), mark: None, ..plot };
        assert!(empty.svg().is_ok());
    }
}
