//! A report as headings, sentences and tables, before it is anybody's format.
//!
//! Text for terminals and Markdown say the same and differ in how they draw it, so what is said stands
//! here once. Words that a file brought have lost their control characters when they come here: no
//! result can move a reader's cursor.

use super::figures::{Compared, Detected, Figure, Figures, Row, Spread, Unit, WayFigures};
use super::{bars, beside, show};
use crate::measure::result::{Basis, Doubt, Machine};

/// A piece of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// 1 is the title.
    Heading(u8, String),
    /// A paragraph.
    Says(String),
    /// Items of a list.
    List(Vec<String>),
    /// Cells may have several lines.
    Table {
        /// Heads of the columns.
        head: Vec<String>,
        /// As many cells each as there are heads.
        rows: Vec<Vec<String>>,
    },
    /// Drawn by hand, in letters of one width.
    Drawing(Vec<String>),
}

/// The whole report.
#[must_use]
pub fn document(results: &[Figures]) -> Vec<Block> {
    match results {
        [first, second] => beside::document(first, second),
        results => results.iter().flat_map(single).collect(),
    }
}

fn single(figures: &Figures) -> Vec<Block> {
    let result = figures.result;
    let title = format!("deadpeer {}, measured {}", plain(&result.program.version), plain(&result.started));
    let mut blocks = vec![Block::Heading(1, title), Block::List(circumstances(figures))];
    blocks.push(Block::Heading(2, "Doubts".to_owned()));
    blocks.push(doubts(&result.doubts));
    figures.detection.iter().for_each(|detection| detected(detection, &mut blocks));
    figures.comparison.iter().for_each(|comparison| compared(comparison, &mut blocks));
    blocks
}

/// Where and how it was measured, a line each.
pub(super) fn circumstances(figures: &Figures) -> Vec<String> {
    let result = figures.result;
    let words: Vec<String> = result.command.iter().map(|word| quoted(&plain(word))).collect();
    let mut lines = machine(&result.machine);
    lines.push(format!("version {}, {} build", plain(&result.program.version), plain(&result.program.build)));
    lines.push(format!("took {}, seed {}", show::nanos(Some(result.took_ns)), result.seed));
    lines.push(format!("command: {}", words.join(" ")));
    lines
}

fn machine(machine: &Machine) -> Vec<String> {
    let cores = |cores: &[u32]| match cores {
        [] => "not pinned".to_owned(),
        cores => {
            let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
            format!("on core {}", cores.join(", "))
        }
    };
    let bytes = |bytes: u64| show::value(Some(bytes as f64), Unit::Bytes);
    let guest = if machine.virtual_machine { ", a virtual machine" } else { "" };
    let memlock = machine.memlock_bytes.map_or_else(|| "unlimited".to_owned(), bytes);
    let root = if machine.root { "as root" } else { "not as root" };
    vec![
        format!(
            "CPU: {}, {} cores, {} of memory{guest}",
            plain(&machine.cpu),
            machine.cores,
            bytes(machine.memory_bytes)
        ),
        format!("kernel {}, tick {}", plain(&machine.kernel), show::nanos(Some(machine.tick_ns))),
        format!("limits: {} descriptors, locked memory {memlock}, {root}", show::count(machine.descriptors)),
        format!(
            "servers {}, load {}; load average before {:.2}",
            cores(&machine.server_cores),
            cores(&machine.load_cores),
            machine.load_thousandths as f64 / 1_000.0
        ),
        bare_recv(machine),
    ]
}

/// What the machine takes for an end without any tracker, in a line.
fn bare_recv(machine: &Machine) -> String {
    let Some(bare) = &machine.bare_recv else { return "bare recv: not measured".to_owned() };
    let at = |percentile| show::nanos(bare.latency.percentile(percentile));
    format!("bare recv, one thread that waits for one FIN: p50 {}, p99 {}", at(50.0), at(99.0))
}

/// Every doubt with its remedy.
pub(super) fn doubts(doubts: &[Doubt]) -> Block {
    if doubts.is_empty() {
        return Block::Says("None: nothing was noticed that speaks against these figures.".to_owned());
    }
    Block::List(
        doubts
            .iter()
            .map(|doubt| {
                format!("{}: {}. Remedy: {}.", kind(doubt), plain(&doubt.text), plain(&doubt.remedy))
            })
            .collect(),
    )
}

/// As files spell it.
fn kind(doubt: &Doubt) -> String {
    let word = serde_json::to_value(doubt.kind).expect("a word can be written");
    word.as_str().unwrap_or_default().to_owned()
}

fn detected(detection: &Detected, blocks: &mut Vec<Block>) {
    let settings = detection.settings;
    blocks.push(Block::Heading(2, "Detection".to_owned()));
    blocks.push(Block::Says(format!(
        "{} connections, {} beats a second, {} deaths a second for {}; detection time {}, wake {}, batch window {}, \
         ring threads: {}.",
        show::count(settings.connections),
        show::count(settings.beats_per_second),
        show::count(settings.deaths_per_second),
        show::nanos(Some(settings.duration_ns)),
        show::nanos(Some(settings.detection_time_ns)),
        plain(&settings.wake),
        show::nanos(Some(settings.batch_window_ns)),
        settings.threads,
    )));
    blocks.push(Block::Heading(3, "Deaths and verdicts".to_owned()));
    blocks.push(table(
        &[
            "way",
            "injected",
            "told",
            "missed",
            "doubled",
            "misnamed",
            "early",
            "injector late p50",
            "p99",
            "max",
        ],
        detection.ways.iter().map(verdicts),
    ));
    let not_run = detection.ways.iter().filter_map(|way| Some((way, way.not_run?)));
    let not_run: Vec<String> =
        not_run.map(|(way, reason)| format!("{} was not run: {}", way.way, plain(reason))).collect();
    if !not_run.is_empty() {
        blocks.push(Block::List(not_run));
    }
    blocks.push(Block::Heading(3, "Latency".to_owned()));
    blocks.push(Block::Says(
        "From the scheduled instant to the verdict; for silent ways from the last sign of life and the detection \
         time, so that 0 is as promised."
            .to_owned(),
    ));
    if detection.bare_recv.is_some() {
        blocks.push(Block::Says(
            "bare recv is no tracker: before anything else ran, one thread waited in recv for one FIN. Whoever \
             sleeps until a peer has gone spends about as much on this machine."
                .to_owned(),
        ));
    }
    let latency = |way: &WayFigures| {
        let basis = if way.basis == Basis::Scheduled { "scheduled" } else { "expiry" };
        [way.way.to_string(), basis.to_owned()].into_iter().chain(spread(&way.latency)).collect()
    };
    let bare = detection.bare_recv.iter().map(|bare| {
        [BARE.to_owned(), "scheduled".to_owned()].into_iter().chain(spread(&bare.latency)).collect()
    });
    let rows = detection.ways.iter().map(latency).chain(bare);
    blocks.push(table(&[&["way", "basis"][..], &SPREAD].concat(), rows));
    let bare = detection.bare_recv.map(|bare| (BARE.to_owned(), bare.latency));
    let drawn = detection.ways.iter().map(|way| (way.way.to_string(), way.latency)).chain(bare);
    blocks.extend(bars::latencies(drawn));
    blocks.push(Block::Heading(3, "Qualities of the detector".to_owned()));
    blocks.push(table(&["quality", "value"], qualities(detection)));
}

fn verdicts(way: &WayFigures) -> Vec<String> {
    let late = &way.injector_late;
    let counts = [way.injected, way.told, way.missed, way.doubled, way.misnamed, way.early];
    let counts = counts.map(|count| match way.not_run {
        Some(_) => show::NOTHING.to_owned(),
        None => show::count(count),
    });
    let late = [late.p50_ns, late.p99_ns, late.max_ns].map(show::nanos);
    [way.way.to_string()].into_iter().chain(counts).chain(late).collect()
}

/// The name of what is no way to die but a yardstick for them.
pub(super) const BARE: &str = "bare recv";

/// The columns of a [`Spread`].
const SPREAD: [&str; 9] = ["count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

fn spread(spread: &Spread) -> Vec<String> {
    let times = spread.times().into_iter().map(|(_, time)| show::nanos(time));
    [show::count(spread.count)].into_iter().chain(times).collect()
}

/// The qualities by their names.
pub(super) fn qualities(detection: &Detected) -> Vec<Vec<String>> {
    let qualities = &detection.qualities;
    let (time, mistake) = (&qualities.detection_time, &qualities.mistake_duration);
    let of = |percentile: &str, value| format!("{percentile} {}", show::nanos(value));
    let rate = qualities.mistakes_per_hour;
    let rows = [
        (
            "detection time of the silent",
            format!(
                "promised {}; {}, {}, {}",
                show::nanos(Some(qualities.promised_ns)),
                of("p50", time.p50_ns),
                of("p99", time.p99_ns),
                of("max", time.max_ns)
            ),
        ),
        (
            "mistake rate",
            rate.map_or(show::NOTHING.to_owned(), |rate| format!("{rate:.3} in an hour of a connection")),
        ),
        (
            "mistakes",
            format!(
                "{}; never taken back (false verdicts): {}",
                show::count(qualities.mistakes),
                show::count(qualities.false_verdicts)
            ),
        ),
        ("mistake duration", format!("{}, {}", of("p50", mistake.p50_ns), of("max", mistake.max_ns))),
    ];
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// The figures of a comparison, in tables that fit a terminal.
pub(super) const GROUPS: [(&str, &[Figure]); 6] = [
    ("CPU", &[Figure::Cpu, Figure::Machine, Figure::Accept, Figure::Death]),
    ("Detection among beats", &[Figure::DetectP50, Figure::DetectP99, Figure::DetectMax]),
    ("Memory", &[Figure::User, Figure::Kernel, Figure::Unread]),
    ("A storm", &[Figure::Storm, Figure::StormReset, Figure::StormTurn]),
    ("How often a peer beats", &[Figure::Rate1, Figure::Rate10, Figure::Rate100]),
    ("A peer that streams", &[Figure::StreamTime, Figure::StreamCpu]),
];

fn compared(comparison: &Compared, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(2, "Comparison".to_owned()));
    blocks.push(Block::Says(load(comparison)));
    if let Some(base) = comparison.base {
        blocks.push(Block::Says(format!(
            "Each cell: the ratio to {} in the same round, median (least-greatest over rounds); beneath it the \
             absolute median.",
            plain(base)
        )));
    }
    for (title, figures) in GROUPS.into_iter().filter(|(_, figures)| comparison.has(figures)) {
        blocks.push(Block::Heading(3, title.to_owned()));
        let head: Vec<&str> =
            ["subject"].into_iter().chain(figures.iter().map(|figure| figure.title())).collect();
        let row = |row: &Row| {
            let cells = figures.iter().map(|figure| cell(row, *figure));
            [cut(&row.subject.name)].into_iter().chain(cells).collect()
        };
        blocks.push(table(&head, comparison.rows.iter().map(row)));
    }
    blocks.extend(bars::ratios(comparison));
    blocks.push(Block::Heading(3, "Detection, all rounds together".to_owned()));
    let pooled = |row: &Row| {
        let counts = [row.missed, row.false_verdicts].map(show::count);
        [cut(&row.subject.name)].into_iter().chain(counts).chain(spread(&row.detection)).collect()
    };
    let head = [&["subject", "missed", "false"][..], &SPREAD].concat();
    blocks.push(table(&head, comparison.rows.iter().map(pooled)));
    blocks.push(Block::Heading(3, "What each is, and gives up".to_owned()));
    let subject = |row: &Row| {
        let subject = row.subject;
        [&subject.name, &subject.what, &subject.gives_up].map(|text| cut(text)).into()
    };
    blocks.push(table(&["subject", "what it is", "what it gives up"], comparison.rows.iter().map(subject)));
}

fn load(comparison: &Compared) -> String {
    let settings = comparison.settings;
    format!(
        "{} rounds, in each every subject once: {} connections, {} beats a second of {} bytes counted for {}; {} deaths \
         among them; {} quiet connections for memory, deaths and the storm.",
        settings.rounds,
        show::count(settings.connections),
        show::count(settings.beats_per_second),
        settings.beat_bytes,
        show::nanos(Some(settings.window_ns)),
        show::count(settings.deaths),
        show::count(settings.idle_connections),
    )
}

/// `0.0112 (0.0108-0.0115)`, and beneath it `48 ns`. Rounds that lack the figure are told.
fn cell(row: &Row, figure: Figure) -> String {
    let cell = row.cell(figure);
    let ratio = cell.ratio.map_or(show::NOTHING.to_owned(), |ratio| {
        let median = show::value(Some(ratio.median), Unit::Ratio);
        format!("{median} ({})", show::range(ratio, Unit::Ratio))
    });
    let value = show::value(cell.value.map(|value| value.median), figure.unit());
    let some = if cell.rounds > 0 && cell.rounds < row.rounds {
        format!(", {} of {} rounds", cell.rounds, row.rounds)
    } else {
        String::new()
    };
    match (cell.value, cell.ratio) {
        (None, _) => show::NOTHING.to_owned(),
        (Some(_), _) => format!("{ratio}\n{value}{some}"),
    }
}

pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Block {
    let head = head.iter().map(|head| (*head).to_owned()).collect();
    Block::Table { head, rows: rows.into_iter().collect() }
}

/// Which columns hold figures, which stand right; words stand left, as does the first column.
#[must_use]
pub fn right(rows: &[Vec<String>], columns: usize) -> Vec<bool> {
    let word = |cell: &String| !cell.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    let words = |column: usize| rows.iter().filter_map(|row| row.get(column)).any(word);
    (0..columns).map(|column| column > 0 && !words(column)).collect()
}

/// A file's words without what could steer a terminal or turn a line around.
#[must_use]
pub fn plain(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|letter| if steers(letter) { ' ' } else { letter }).collect()
}

/// For a cell: no longer than anybody would read.
pub(super) fn cut(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = plain(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || "-_./:,=+@%".contains(letter);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
