//! What came of the cells: a line for each, the grid for terminals, JSON for programs, and the section of a Markdown page.
//!
//! Refuses: to decide whether a cell is good.

use std::fmt::Write;

use patchbay_rules::EndpointKind;
use serde::{Serialize, Serializer};

use super::Fault;
use super::judge::Leg;
use super::witness::Taken;

/// What is known of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Every viewer got what the matrix promises.
    Green,
    /// One did not; why.
    Red(String),
    /// A client is missing; which, and what to do.
    Untested(String),
}

/// One cell, driven.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// Kind of the source.
    pub from: EndpointKind,
    /// Kind of the sink.
    pub to: EndpointKind,
    /// What came of it.
    #[serde(flatten, serialize_with = "state")]
    pub state: State,
    /// Who published.
    pub source: String,
    /// What the deployment took from it, all in all.
    pub taken: Taken,
    /// Its viewers.
    pub legs: Vec<Leg>,
}

fn state<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        state: &'static str,
        reason: Option<&'a str>,
    }
    let (state, reason) = match state {
        State::Green => ("green", None),
        State::Red(why) => ("red", Some(why.as_str())),
        State::Untested(what) => ("not_tested", Some(what.as_str())),
    };
    Shown { state, reason }.serialize(serializer)
}

impl Cell {
    /// A cell whose source there was not.
    pub(super) fn without_viewers(from: EndpointKind, to: EndpointKind, fault: Fault) -> Self {
        let state = match fault {
            Fault::Missing(what) => State::Untested(what),
            Fault::Failed(why) => State::Red(why),
        };
        Self { from, to, state, source: String::new(), taken: Taken::default(), legs: Vec::new() }
    }

    /// Something is wrong with it. What is red stays red, and the first reason stands.
    pub(super) fn blame(&mut self, fault: State) {
        if self.state == State::Green || matches!((&self.state, &fault), (State::Untested(_), State::Red(_))) {
            self.state = fault;
        }
    }

    /// The codecs that its viewers got, such as `h264+aac`.
    pub fn codecs(&self) -> String {
        let observed = self.legs.first().map(|leg| &leg.observed);
        let codec = |codec: Option<&Option<String>>| codec.cloned().flatten().unwrap_or_else(|| "-".into());
        format!("{}+{}", codec(observed.map(|o| &o.video)), codec(observed.map(|o| &o.audio)))
    }

    /// The least share of the pictures that one of its viewers saw, percent.
    pub fn shown_percent(&self) -> f64 {
        let shown = self.legs.iter().map(|leg| leg.observed.shown_percent());
        shown.fold(100.0, f64::min)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let (from, to) = (self.from.name(), self.to.name());
        match &self.state {
            State::Green => {
                let ways = self.legs.iter().map(|leg| {
                    let seen = &leg.observed;
                    format!("{} by {}: {}/{} pictures", leg.way, seen.client, seen.shown(), seen.stamps.expected)
                });
                format!("{from} -> {to}: ok, {}; {}", self.codecs(), ways.collect::<Vec<_>>().join("; "))
            }
            State::Red(why) => format!("{from} -> {to}: RED, {why}"),
            State::Untested(what) => format!("{from} -> {to}: not tested, {what}"),
        }
    }
}

/// The grid.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which patchbay was asked.
    pub deployment: String,
    /// Rows.
    pub from: Vec<EndpointKind>,
    /// Columns.
    pub to: Vec<EndpointKind>,
    /// All cells, row by row.
    pub cells: Vec<Cell>,
}

impl Report {
    pub fn new(deployment: String, from: Vec<EndpointKind>, to: Vec<EndpointKind>) -> Self {
        Self { deployment, from, to, cells: Vec::new() }
    }

    fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.cells.iter().filter(|cell| is(&cell.state)).count()
    }

    /// Whether every cell that could be tested is green, and one could; `strict`: every cell.
    pub fn is_good(&self, strict: bool) -> bool {
        let green = self.count(|s| *s == State::Green);
        let untested = self.count(|s| matches!(s, State::Untested(_)));
        green > 0 && green + if strict { 0 } else { untested } == self.cells.len()
    }

    fn cell(&self, from: EndpointKind, to: EndpointKind) -> Option<&Cell> {
        self.cells.iter().find(|cell| (cell.from, cell.to) == (from, to))
    }

    /// The grid for terminals, and how many cells are what.
    pub fn text(&self) -> String {
        let word = |cell: Option<&Cell>| match cell.map(|cell| (&cell.state, cell.codecs())) {
            Some((State::Green, codecs)) => format!("ok {codecs}"),
            Some((State::Red(_), _)) => "RED".into(),
            Some((State::Untested(_), _)) => "not tested".into(),
            None => "-".into(),
        };
        let mut out = format!("{:<12}", "from \\ to");
        // Writing to a String cannot fail; so in this whole file.
        self.to.iter().for_each(|to| _ = write!(out, " {to:<13}"));
        for from in &self.from {
            out.truncate(out.trim_end().len());
            let _ = write!(out, "\n{from:<12}");
            self.to.iter().for_each(|to| _ = write!(out, " {:<13}", word(self.cell(*from, *to))));
        }
        out.truncate(out.trim_end().len());
        let _ = write!(out, "\n\n{}\n", self.summary());
        out
    }

    fn summary(&self) -> String {
        let mut out = format!("{} of {} cells are green", self.count(|s| *s == State::Green), self.cells.len());
        for (count, words) in
            [(self.count(|s| matches!(s, State::Red(_))), "red"), (self.count(|s| matches!(s, State::Untested(_))), "not tested")]
        {
            if count > 0 {
                let _ = write!(out, ", {count} {words}");
            }
        }
        out
    }

    /// The section of a Markdown page.
    pub fn markdown(&self) -> String {
        let mut out = String::from("| from \\ to |");
        self.to.iter().for_each(|to| _ = write!(out, " {to} |"));
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(self.to.len()));
        for from in &self.from {
            let _ = write!(out, "\n| **{from}** |");
            for to in &self.to {
                let _ = match self.cell(*from, *to).map(|cell| (&cell.state, cell.codecs())) {
                    Some((State::Green, codecs)) => write!(out, " ✓ {codecs} |"),
                    Some((State::Red(_), _)) => write!(out, " ✗ |"),
                    Some((State::Untested(_), _)) | None => write!(out, " not tested |"),
                };
            }
        }
        let _ = write!(out, "\n\npatchbay {}: {}. ", env!("CARGO_PKG_VERSION"), self.summary());
        if let Some(worst) =
            self.cells.iter().filter(|cell| cell.state == State::Green).min_by(|a, b| a.shown_percent().total_cmp(&b.shown_percent()))
        {
            let _ = write!(
                out,
                "The least share of pictures that a viewer saw is {:.1} % ({} to {}). ",
                worst.shown_percent(),
                worst.from,
                worst.to
            );
        }
        let _ = writeln!(out, "Sources: {}. Viewers: {}.", self.names(|cell| vec![cell.source.clone()]), self.names(viewers));
        for cell in self.cells.iter().filter(|cell| cell.state != State::Green) {
            let _ = write!(out, "\n- {}", cell.line().replace('|', "\\|"));
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }

    /// All different names that `of` gives for the cells.
    fn names(&self, of: impl Fn(&Cell) -> Vec<String>) -> String {
        let mut names: Vec<String> = self.cells.iter().flat_map(of).filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        names.join(", ")
    }
}

fn viewers(cell: &Cell) -> Vec<String> {
    cell.legs.iter().map(|leg| format!("{} ({})", leg.observed.client, leg.way)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Observed;
    use super::*;

    const RTMP: EndpointKind = EndpointKind::Rtmp;
    const H5: EndpointKind = EndpointKind::H5;

    fn report() -> Report {
        let mut report = Report::new("http://h".into(), vec![RTMP, H5], vec![RTMP, H5]);
        let observed = Observed { client: "FFmpeg".into(), video: Some("h264".into()), audio: Some("aac".into()), ..Observed::default() };
        let legs = vec![Leg { way: "RTMP", observed, row: None, predicted: None }];
        report.cells.push(Cell { from: RTMP, to: RTMP, state: State::Green, source: "FFmpeg".into(), taken: Taken::default(), legs });
        report.cells.push(Cell::without_viewers(RTMP, H5, Fault::Failed("no a|b".into())));
        report.cells.push(Cell::without_viewers(H5, RTMP, Fault::Missing("install x".into())));
        report
    }

    #[test]
    fn the_grid_shows_what_every_cell_came_to() {
        let text = report().text();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["rtmp", "ok", "h264+aac", "RED"]);
        assert_eq!(rows[2], ["h5", "not", "tested", "-"]);
        assert!(text.ends_with("1 of 3 cells are green, 1 red, 1 not tested\n"), "{text}");
        let page = report().markdown();
        assert!(page.contains("| **rtmp** | ✓ h264+aac | ✗ |\n") && page.contains("- rtmp -> h5: RED, no a\\|b"), "{page}");
    }

    #[test]
    fn a_missing_client_is_no_red_cell_unless_that_is_asked_for() {
        let mut report = report();
        assert!(!report.is_good(false));
        report.cells.remove(1);
        assert!(report.is_good(false) && !report.is_good(true));
        report.cells.remove(0);
        assert!(!report.is_good(false), "nothing was tested");
    }

    #[test]
    fn red_comes_before_untested_and_the_first_reason_stands() {
        let mut cell = Cell { from: RTMP, to: H5, state: State::Green, source: String::new(), taken: Taken::default(), legs: Vec::new() };
        for fault in [State::Untested("x".into()), State::Red("a".into()), State::Red("b".into()), State::Untested("y".into())] {
            cell.blame(fault);
        }
        assert_eq!(cell.state, State::Red("a".into()));
    }

    #[test]
    fn programs_read_the_state_of_every_cell() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!((json["cells"][0]["state"].as_str(), json["cells"][1]["state"].as_str()), (Some("green"), Some("red")));
        assert_eq!((json["cells"][1]["reason"].as_str(), json["cells"][2]["state"].as_str()), (Some("no a|b"), Some("not_tested")));
        assert_eq!(json["cells"][0]["legs"][0]["observed"]["video"], "h264");
    }
}
