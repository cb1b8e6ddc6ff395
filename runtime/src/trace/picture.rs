// SPDX-License-Identifier: Apache-2.0
//! A trace as a picture: a waterfall of what the host and the stage did, in SVG.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::chart::{Bar, Chart};

/// Pixels: of the words, of the bars beside them, of a row, of what is above and below.
const WORDS: f64 = 430.0;
const BARS: f64 = 640.0;
const ROW: f64 = 15.0;
const HEAD: f64 = 46.0;
const FOOT: f64 = 12.0;

/// What fits into a row's words, in characters.
const FITS: usize = 74;

/// Steps without a field that took less than this part of the whole share a row.
const SHORT: f64 = 1.0 / 150.0;

const HOST: &str = "#3778bf";
const STAGE: &str = "#c2571a";
const GREY: &str = "#7a7a7a";
const RED: &str = "#c0202a";

/// The whole picture.
#[must_use]
pub fn draw(chart: &Chart) -> String {
    let rows = rows(chart);
    let total = chart.took().max(1e-3);
    let begin = chart.bars.iter().map(|bar| bar.begin).fold(f64::INFINITY, f64::min);
    let at = |micros: f64| WORDS + 8.0 + (micros - begin) / total * BARS;
    let (width, height) = (WORDS + BARS + 24.0, HEAD + ROW * rows.len() as f64 + FOOT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"10\">\n"
    );
    head(&mut svg, chart, total, &|micros| at(micros + begin), height - FOOT);
    for (index, row) in rows.iter().enumerate() {
        let y = HEAD + ROW * index as f64;
        draw_row(&mut svg, row, y, &at);
    }
    svg.push_str("</svg>\n");
    svg
}

fn head(svg: &mut String, chart: &Chart, total: f64, at: &dyn Fn(f64) -> f64, bottom: f64) {
    let title = format!("{}: {total:.0} µs", chart.title);
    put(svg, &text((0.0, 14.0), "start", GREY, &title, " font-size=\"13\""));
    for (x, colour, what) in [(WORDS + 8.0, HOST, "host"), (WORDS + 60.0, STAGE, "stage, in the container")] {
        put(svg, &format!("<rect x=\"{x:.1}\" y=\"5\" width=\"9\" height=\"9\" fill=\"{colour}\"/>"));
        put(svg, &text((x + 13.0, 14.0), "start", GREY, what, ""));
    }
    put(
        svg,
        &text((WORDS + 200.0, 14.0), "start", GREY, "dark: in system calls; pale: waiting for the other", ""),
    );
    let step = tick(total);
    let mut micros = 0.0;
    while micros <= total {
        let x = at(micros);
        put(
            svg,
            &format!(
                "<line x1=\"{x:.1}\" y1=\"{HEAD:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\" stroke=\"{GREY}40\"/>"
            ),
        );
        put(svg, &text((x, HEAD - 6.0), "middle", GREY, &format!("{micros:.0}"), ""));
        micros += step;
    }
}

/// Microseconds between two lines: 1, 2 or 5 times a power of ten, some ten lines in all.
fn tick(total: f64) -> f64 {
    let mut step = 1.0;
    loop {
        for factor in [1.0, 2.0, 5.0] {
            if total / (step * factor) <= 12.0 {
                return step * factor;
            }
        }
        step *= 10.0;
    }
}

/// What stands in one line.
struct Row<'a> {
    bars: Vec<&'a Bar>,
}

/// Steps of one side that follow one another for one field share a row, and so do short ones that no field asked for.
fn rows(chart: &Chart) -> Vec<Row<'_>> {
    let short = chart.took() * SHORT;
    let mut rows: Vec<Row<'_>> = Vec::new();
    for side in ["host", "stage"] {
        let mut last: Option<usize> = None;
        for bar in chart.bars.iter().filter(|bar| bar.side == side) {
            let joins = last.and_then(|row| rows.get(row)).is_some_and(|row| belongs(row, bar, short));
            match last.and_then(|row| rows.get_mut(row)).filter(|_| joins) {
                Some(row) => row.bars.push(bar),
                None => {
                    last = Some(rows.len());
                    rows.push(Row { bars: vec![bar] });
                }
            }
        }
    }
    let begin = |row: &Row<'_>| row.bars.first().map_or(0.0, |bar| bar.begin);
    rows.sort_by(|one, other| begin(one).total_cmp(&begin(other)));
    rows
}

fn belongs(row: &Row<'_>, bar: &Bar, short: f64) -> bool {
    let Some(last) = row.bars.last() else { return false };
    if last.waits || bar.waits || bar.error.is_some() {
        return false;
    }
    if last.field.is_empty() && bar.field.is_empty() {
        return bar.step.is_some() == last.step.is_some()
            && bar.took < short
            && row.bars.iter().all(|bar| bar.took < short);
    }
    last.field == bar.field
}

impl Row<'_> {
    fn words(&self) -> String {
        let Some(first) = self.bars.first() else { return String::new() };
        let words = match (first.field.as_str(), self.bars.len()) {
            ("", 1) => first.name.clone(),
            ("", count) => format!("{} (and {} more)", first.name, count - 1),
            (field, 1) => format!("{field}: {}", first.name),
            (field, count) => format!("{field}: {} (and {} more)", first.name, count - 1),
        };
        if words.chars().count() <= FITS {
            return words;
        }
        words.chars().take(FITS - 1).chain(['…']).collect()
    }
}

fn draw_row(svg: &mut String, row: &Row<'_>, y: f64, at: &dyn Fn(f64) -> f64) {
    let failed = row.bars.iter().any(|bar| bar.error.is_some());
    let colour = if failed { RED } else { GREY };
    put(svg, &text((WORDS, y + 10.5), "end", colour, &row.words(), ""));
    for bar in &row.bars {
        let colour = match (bar.error.is_some(), bar.side.as_str()) {
            (true, _) => RED,
            (false, "host") => HOST,
            (false, _) => STAGE,
        };
        let pale = match (bar.waits, bar.side.as_str()) {
            (true, _) => " fill-opacity=\"0.2\"",
            (false, "host") => "",
            // Its calls are drawn over it.
            (false, _) => " fill-opacity=\"0.45\"",
        };
        let (left, right) = (at(bar.begin), at(bar.begin + bar.took));
        let told = told(bar);
        put(
            svg,
            &format!(
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"{pale}><title>{}</title></rect>",
                y + 2.0,
                (right - left).max(0.6),
                ROW - 4.0,
                escaped(&told)
            ),
        );
        for call in bar.calls.iter().filter(|_| !bar.waits) {
            let (left, right) = (at(call.begin), at(call.begin + call.took));
            // What is less than a fifth of a pixel is not seen.
            if right - left >= 0.2 {
                let error = call.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                let told = format!("{} {:.1} µs{error}", call.name, call.took);
                put(
                    svg,
                    &format!(
                        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
                        y + 2.0,
                        right - left,
                        ROW - 4.0,
                        escaped(&told)
                    ),
                );
            }
        }
    }
}

/// What a bar says when it is pointed at.
fn told(bar: &Bar) -> String {
    let step = bar.step.map_or_else(String::new, |step| format!("step {step}, "));
    let error = bar.error.as_ref().map_or_else(String::new, |error| format!("\nfailed: {error}"));
    format!("{} ({step}{})\n{:.1} µs{error}", bar.name, bar.side, bar.took)
}

fn text((x, y): (f64, f64), anchor: &str, colour: &str, what: &str, more: &str) -> String {
    let what = escaped(what);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\"{more}>{what}</text>")
}

fn put(svg: &mut String, line: &str) {
    let _ = writeln!(svg, "{line}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a configuration says must not become markup, and every bar lies in the picture.
    #[test]
    fn words_are_words_and_bars_inside() {
        let mut chart = Chart::read(include_bytes!("sample.json")).unwrap();
        chart.bars[2].name = "</svg><script>&\"".into();
        let svg = draw(&chart);
        assert_eq!((svg.matches("</svg>").count(), svg.matches("<script>").count()), (1, 0), "{svg}");
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt;&amp;&quot;"), "{svg}");
        for (x, width) in svg.lines().filter(|line| line.starts_with("<rect")).map(|line| {
            let value = |name: &str| -> f64 {
                let rest = line.split(&format!(" {name}=\"")).nth(1).unwrap();
                rest.split('"').next().unwrap().parse().unwrap()
            };
            (value("x"), value("width"))
        }) {
            assert!(x >= WORDS && x + width <= WORDS + BARS + 24.0, "{x} {width}");
        }
    }

    #[test]
    fn rows_are_of_one_field() {
        let chart = Chart::read(include_bytes!("sample.json")).unwrap();
        assert_eq!(rows(&chart).len(), 4);
        let mut chart = chart;
        let second = Bar { begin: 5.5, ..chart.bars[2].clone() };
        chart.bars.insert(3, second);
        let all = rows(&chart);
        assert_eq!(all.iter().map(|row| row.bars.len()).collect::<Vec<_>>(), [1, 1, 2, 1]);
        assert!(all[2].words().ends_with("(and 1 more)"), "{}", all[2].words());
    }

    #[test]
    fn a_handful_of_lines_whatever_the_time() {
        for total in [0.001, 1.0, 13.0, 999.0, 2_345.0, 1e7] {
            let lines = total / tick(total);
            assert!(lines <= 12.0, "{total}: {lines}");
        }
    }
}
