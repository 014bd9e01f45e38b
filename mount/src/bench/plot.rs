//! Figures as drawings: SVG, small enough to lie beside the text.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::error::Error;
use std::fmt::Debug;
use std::path::Path;

type Done = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 840;
const ROW_HEIGHT: u32 = 26;
const FONT: &str = "sans-serif";
const CEILING: RGBColor = RGBColor(0x2a, 0x6f, 0xb0);
const DISK: RGBColor = RGBColor(0xd9, 0x8e, 0x2b);
const LINE: RGBColor = RGBColor(0x77, 0x77, 0x77);
/// What is more is cut off: a bar as long as this says enough.
const RATIO_MAX: f64 = 3.0;

/// A bar for each row's name: how its rate is to the ceiling's, if it has one, and to the disk's.
pub fn ratios(path: &Path, rows: &[(String, Option<f64>, f64)]) -> Done {
    let count = rows.len();
    let root = SVGBackend::new(path, (WIDTH, ROW_HEIGHT * count as u32 + 80)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..RATIO_MAX, 0.0..count as f64)?;
    // Names stand beside the middle of their rows, which are counted from the top.
    let at = |index: usize| (count - 1 - index) as f64;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_label_formatter(&|_| String::new())
        .set_tick_mark_size(LabelAreaPosition::Left, 0)
        .x_desc("rate of kivafs, as a share of the ceiling's (blue) and of the plain disk's (yellow)")
        .label_style((FONT, 13))
        .draw()?;
    let bar = |low: f64, high: f64, ratio: f64, color: RGBColor| {
        Rectangle::new([(0.0, low), (ratio.clamp(0.0, RATIO_MAX), high)], color.filled())
    };
    for (index, (name, ceiling, disk)) in rows.iter().enumerate() {
        let low = at(index);
        if let Some(ceiling) = ceiling {
            chart.draw_series([bar(low + 0.5, low + 0.85, *ceiling, CEILING)])?;
        }
        chart.draw_series([bar(low + 0.15, low + 0.5, *disk, DISK)])?;
        let (x, y) = chart.backend_coord(&(0.0, low + 0.75));
        root.draw(&Text::new(name.clone(), (x - 85, y), (FONT, 14)))?;
    }
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, count as f64)], LINE))?;
    root.present()?;
    Ok(())
}

/// How it was when a store had so many files.
pub struct Grown {
    pub files: f64,
    /// Files made a second, on the way there.
    pub rates: Vec<(f64, f64)>,
    pub mount_millis: f64,
    pub memory_mib: f64,
}

/// Three lines over the number of files.
pub fn growth(path: &Path, grown: &[Grown]) -> Done {
    let root = SVGBackend::new(path, (WIDTH, 260)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((1, 3));
    let of = |figure: fn(&Grown) -> f64| grown.iter().map(|one| (one.files, figure(one))).collect::<Vec<_>>();
    let rates: Vec<_> = grown.iter().flat_map(|one| one.rates.iter().copied()).collect();
    panel(&panels[0], "files made a second", &rates)?;
    panel(&panels[1], "mount after kill -9, ms", &of(|one| one.mount_millis))?;
    panel(&panels[2], "resident memory, MiB", &of(|one| one.memory_mib))?;
    root.present()?;
    Ok(())
}

/// From zero on upwards, so that what stays as it is looks so.
fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, caption: &str, points: &[(f64, f64)]) -> Done {
    let most = |figure: fn(&(f64, f64)) -> f64| points.iter().map(figure).fold(1.0, f64::max);
    let (files, height) = (most(|point| point.0), 1.1 * most(|point| point.1));
    let least = points.iter().map(|point| point.0).fold(files, f64::min).max(1.0);
    // A single point has no line to stand on.
    let files = files.max(10.0 * least);
    axes(area, caption, (least..files).log_scale(), height, points)
}

fn axes<X>(area: &DrawingArea<SVGBackend<'_>, Shift>, caption: &str, x: X, height: f64, points: &[(f64, f64)]) -> Done
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    X::Value: Debug,
{
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 15))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(x, 0.0..height)?;
    chart
        .configure_mesh()
        .x_labels(4)
        .y_labels(5)
        .x_desc("files")
        .x_label_formatter(&|files| format!("{files:.0e}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, 12))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), CEILING.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, CEILING.filled())))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(draw: impl FnOnce(&Path) -> Done) -> String {
        let dir = assert_fs::TempDir::new().unwrap();
        let path = dir.path().join("figures.svg");
        draw(&path).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn each_row_has_its_name_and_its_bars() {
        let rows = [("create 1".to_string(), Some(0.9), 0.5), ("fsync 1".to_string(), None, 100.0)];
        let svg = drawn(|path| ratios(path, &rows));
        assert!(rows.iter().all(|(name, ..)| svg.contains(name)), "{svg}");
        let bars = |color: &str| svg.lines().filter(|line| line.contains("<rect") && line.contains(color)).count();
        assert_eq!([bars("#2A6FB0"), bars("#D98E2B")], [1, 2], "{svg}");
        assert!(svg.len() < 20_000);
    }

    #[test]
    fn growth_is_drawn_from_one_look_on() {
        let grown = |files| Grown { files, rates: vec![(files, 3e3)], mount_millis: 20.0, memory_mib: 0.0 };
        for looks in [vec![grown(1.0)], vec![grown(1e5), grown(1e6), grown(1e7)]] {
            let svg = drawn(|path| growth(path, &looks));
            assert!(svg.contains("mount after kill -9") && svg.len() < 40_000, "{svg}");
            assert_eq!(svg.matches("<circle").count(), 3 * looks.len());
        }
    }
}
