//! A figure of some lines over a logarithmic axis, as SVG.

use std::fmt::Write as _;

/// A line: its name, and where it goes through.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555"];

/// `x` begins at 1 and goes by powers of ten, `y` begins at zero.
pub fn svg(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let decades = all().map(|(x, _)| x.log10()).fold(1.0, f64::max).ceil();
    let step = 50.0;
    let most = (all().map(|(_, y)| *y).fold(1.0, f64::max) / step).ceil() * step;
    let at = |(x, y): (f64, f64)| {
        let across = LEFT + x.log10() / decades * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - y / most * (HEIGHT - TOP - BOTTOM))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in 0..=(most / step) as u32 {
        let value = f64::from(tick) * step;
        let (_, up) = at((1.0, value));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {up:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0,
            up + 4.0
        );
    }
    for decade in 0..=decades as i32 {
        let (across, _) = at((10f64.powi(decade), 0.0));
        let names = ["1", "10", "100", "1,000", "10,000", "100,000", "1 M", "10 M"];
        let _ = writeln!(
            out,
            "<path d=\"M{across:.1} {bottom}v5\" stroke=\"#333\"/><text x=\"{across:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            names.get(decade as usize).unwrap_or(&"")
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\n\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0,
        (TOP + bottom) / 2.0
    );
    for (n, line) in lines.iter().enumerate() {
        draw(&mut out, line, COLOURS[n % COLOURS.len()], TOP + 18.0 * n as f64, at);
    }
    out + "</svg>\n"
}

fn draw(out: &mut String, line: &Line, colour: &str, legend: f64, at: impl Fn((f64, f64)) -> (f64, f64)) {
    let points: Vec<String> = line
        .points
        .iter()
        .map(|point| {
            let (x, y) = at(*point);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let beside = WIDTH - RIGHT + 12.0;
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
         <path d=\"M{beside} {legend}h18\" stroke=\"{colour}\" stroke-width=\"2\"/>\
         <text x=\"{}\" y=\"{}\">{}</text>",
        points.join(" "),
        beside + 24.0,
        legend + 4.0,
        line.name
    );
}
