//! The scorecard as one page that needs nothing else: a figure, a map of pairs, plots, and a table.

use super::faults::Outcome;
use super::{Card, Cell};
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#667;--line:#ccd;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa;--line:#445;--paper:#16181c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px}td,th{padding:.15rem .5rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
.big{font-size:2.2rem;font-weight:600}svg text{fill:currentColor;font-size:11px}.axis{stroke:var(--line)}
";

/// The page.
#[must_use]
pub fn page(card: &Card) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Warren's scorecard</title><style>{STYLE}</style><h1>Which pairs go direct, and how fast</h1>\
         <p class=soft>{} pairs of networks, simulated; {} ms round trip; time counts from the coordinator's word until \
         both ends send directly. {:.1} % of <em>explain</em>'s verdicts name the true reason and side.</p>",
        card.cells.len(),
        card.rtt_ms,
        100.0 * card.verdicts_right(),
    );
    if let Some(population) = &card.population {
        let _ = write!(
            out,
            "<p><span class=big>{:.1} %</span> of people's connections go direct, weighted by where they and their \
             workspaces are assumed to be; a path exists for {:.1} %.</p><ul class=soft>",
            100.0 * population.direct_share,
            100.0 * population.possible_share
        );
        for line in &population.assumptions {
            let _ = write!(out, "<li>{line}</li>");
        }
        out += "</ul>";
    }
    let losses: BTreeSet<u64> = card.cells.iter().map(|cell| percent(cell.loss)).collect();
    for loss in losses {
        let cells: Vec<&Cell> = card.cells.iter().filter(|cell| percent(cell.loss) == loss).collect();
        let _ = write!(out, "<h2>{} % loss: share of worlds that went direct</h2>", loss as f64 / 10.0);
        map(&cells, &mut out);
        let _ = write!(out, "<h2>{} % loss: time to direct, all pairs</h2>", loss as f64 / 10.0);
        times(&cells, &mut out);
    }
    faults(&card.faults, &mut out);
    out += "<h2>All pairs</h2>";
    table(&card.cells, &mut out);
    out + "</html>\n"
}

/// A loss in tenths of a per cent.
fn percent(loss: f64) -> u64 {
    (loss * 1_000.0).round() as u64
}

/// A square for each pair, green where all went direct, red where none did though one could.
fn map(cells: &[&Cell], out: &mut String) {
    const SIDE: usize = 14;
    const LABELS: usize = 190;
    let mut names: Vec<&str> = Vec::new();
    for name in cells.iter().flat_map(|cell| [cell.a.as_str(), cell.b.as_str()]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let place = |name: &str| names.iter().position(|n| *n == name).unwrap_or(0);
    let size = LABELS + SIDE * names.len();
    let _ = write!(
        out,
        "<div class=scroll><svg width={size} height={size} role=img aria-label=\"map of pairs\">"
    );
    for (n, name) in names.iter().enumerate() {
        let at = LABELS + n * SIDE;
        let (row, column) = (at + SIDE - 3, at + SIDE / 2 + 4);
        let _ = write!(out, "<text x={} y={row} text-anchor=end>{name}</text>", LABELS - 6);
        let _ = write!(
            out,
            "<text transform=\"rotate(-90 {column} {y})\" x={column} y={y}>{name}</text>",
            y = LABELS - 6
        );
    }
    for cell in cells {
        let (x, y) = (place(&cell.a), place(&cell.b));
        for (x, y) in BTreeSet::from([(x, y), (y, x)]) {
            let _ = write!(
                out,
                "<rect x={} y={} width={w} height={w} fill=\"{}\"><title>{}</title></rect>",
                LABELS + x * SIDE,
                LABELS + y * SIDE,
                colour(cell),
                describe(cell),
                w = SIDE - 1,
            );
        }
    }
    out.push_str("</svg></div><p class=soft>Green: direct. Grey: no path exists, relayed. Amber to red: a path exists that was not always found.</p>");
}

fn colour(cell: &Cell) -> String {
    if !cell.possible && cell.direct_share == 0.0 {
        return "#8a929c".into();
    }
    format!("hsl({} 60% 45%)", (cell.direct_share * cell.direct_share * 140.0).round())
}

fn describe(cell: &Cell) -> String {
    let time = cell.time_to_direct_ms.map_or(String::new(), |t| {
        format!(", p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms", t.p50, t.p95, t.p99)
    });
    format!(
        "{} + {}: {:.1} % direct of {}{time}; {} probes at p50, {} at p99; {:.0} % of verdicts right",
        cell.a,
        cell.b,
        100.0 * cell.direct_share,
        cell.seeds,
        cell.probes.p50,
        cell.probes.p99,
        100.0 * cell.verdict_right_share
    )
}

/// The pairs' p50, p95 and p99, each sorted: how many pairs are done by when.
fn times(cells: &[&Cell], out: &mut String) {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 220.0;
    const LEFT: f64 = 50.0;
    let all: Vec<_> = cells.iter().filter_map(|cell| cell.time_to_direct_ms).collect();
    let Some(longest) = all.iter().map(|t| t.p99).max_by(f64::total_cmp) else { return };
    let _ = write!(
        out,
        "<svg width={} height={} role=img aria-label=\"time to direct\"><line class=axis x1={LEFT} y1={HEIGHT} x2={x} \
         y2={HEIGHT} /><line class=axis x1={LEFT} y1=0 x2={LEFT} y2={HEIGHT} />",
        WIDTH + LEFT + 60.0,
        HEIGHT + 30.0,
        x = WIDTH + LEFT
    );
    for n in 0..=4 {
        let part = f64::from(n) / 4.0;
        let (x, y) = (LEFT + WIDTH * part, HEIGHT * (1.0 - part));
        let _ =
            write!(out, "<text x={x} y={} text-anchor=middle>{:.0} ms</text>", HEIGHT + 18.0, longest * part);
        let _ =
            write!(out, "<text x={} y={} text-anchor=end>{:.0} %</text>", LEFT - 6.0, y + 4.0, part * 100.0);
    }
    let lines: [(&str, &str, fn(&super::Times) -> f64); 3] =
        [("p50", "#2a9d5c", |t| t.p50), ("p95", "#d08a1c", |t| t.p95), ("p99", "#c8443a", |t| t.p99)];
    for (row, (name, colour, of)) in lines.into_iter().enumerate() {
        let mut sorted: Vec<f64> = all.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let points: Vec<String> = sorted
            .iter()
            .zip(1_u32..)
            .map(|(ms, n)| {
                format!("{:.1},{:.1}", LEFT + WIDTH * ms / longest, HEIGHT * (1.0 - f64::from(n) / count))
            })
            .collect();
        let _ = write!(
            out,
            "<polyline fill=none stroke=\"{colour}\" stroke-width=2 points=\"{}\" />",
            points.join(" ")
        );
        let y = 20 + 16 * row;
        let _ = write!(out, "<text x={} y={y} style=\"fill:{colour}\">{name}</text>", WIDTH + LEFT + 10.0);
    }
    out.push_str("</svg><p class=soft>Share of pairs whose percentile is below the time.</p>");
}

/// What faults do, if that was measured.
fn faults(rows: &[Outcome], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Faults: the gap that the application sees</h2><div class=scroll><table><tr><th>fault<th><th>worlds<th>p50 ms\
         <th>p99 ms<th>to be at most<th>lost<th>direct again<th>after, p99 ms",
    );
    for row in rows {
        let whole = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.0}"));
        let _ = write!(
            out,
            "<tr><td>{}<td><td>{}<td>{:.0}<td>{:.0}<td>{}<td>{}<td>{:.0} %<td>{}",
            row.fault,
            row.seeds,
            row.gap_ms.p50,
            row.gap_ms.p99,
            whole(row.bound_ms),
            row.lost,
            100.0 * row.direct_share,
            whole(row.direct_ms),
        );
    }
    out.push_str("</table></div>");
}

fn table(cells: &[Cell], out: &mut String) {
    out.push_str(
        "<div class=scroll><table><tr><th>client<th>workspace<th>loss<th>worlds<th>direct<th>p50 ms<th>p95 ms<th>p99 ms\
         <th>probes p50<th>p99<th>verdicts right",
    );
    for cell in cells {
        let time = |of: fn(&super::Times) -> f64| {
            cell.time_to_direct_ms.as_ref().map_or("–".to_owned(), |t| format!("{:.0}", of(t)))
        };
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{:.1} %<td>{}<td>{:.1} %<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.0} %",
            cell.a,
            cell.b,
            100.0 * cell.loss,
            cell.seeds,
            100.0 * cell.direct_share,
            time(|t| t.p50),
            time(|t| t.p95),
            time(|t| t.p99),
            cell.probes.p50,
            cell.probes.p99,
            100.0 * cell.verdict_right_share
        );
    }
    out.push_str("</table></div>");
}
