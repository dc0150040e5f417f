//! The forecast in a few lines: memory left to send as a row of blocks, duration, blackout, and the limiting factor.

use std::io::{self, Write};

use vmgate_facts::{Fact, Forecast, Quantiles};
use vmgate_verdict::Verdict;

use super::super::{Style, style::Paint, visible, words, wrap::wrap};

/// Block characters, from empty to full in eighths.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Most columns of the row of blocks.
const WIDEST: usize = 40;
/// Width of the labels at the left.
const LEAD: usize = 14;

/// Writes the forecast of a replay. A forecast without a replay is only in the messages of the rules.
pub(super) fn write(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let Some(forecast) = &verdict.forecast else { return Ok(()) };
    let lines = lines(forecast);
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(sink, "\n{}", style.paint(Paint::Strong, "Forecast"))?;
    for (lead, text) in lines {
        let hang = " ".repeat(LEAD);
        let lead = format!("{lead:LEAD$}");
        for line in wrap(&visible(&text), &lead, &hang, style.columns()) {
            writeln!(sink, "{line}")?;
        }
    }
    Ok(())
}

fn lines(forecast: &Forecast) -> Vec<(&'static str, String)> {
    let Fact::Known(moments) = &forecast.timeline else { return Vec::new() };
    let most = moments.iter().map(|moment| moment.remaining_bytes.p50).fold(0.0, f64::max);
    let (Some(end), true) = (moments.last(), most > 0.0) else { return Vec::new() };
    let blocks = blocks(&moments.iter().map(|moment| moment.remaining_bytes.p50 / most).collect::<Vec<_>>());
    let span = words::seconds(end.at_seconds);
    let mut lines = vec![("left to send", format!("{blocks}  {} over {span}", words::bytes(most)))];
    let mut add = |lead, text: Option<String>| lines.extend(text.map(|text| (lead, text)));
    let rounds = words::rounds(forecast).map_or(String::new(), |rounds| format!(" in {rounds}"));
    let sent = forecast
        .sent_bytes
        .known()
        .map_or(String::new(), |sent| format!(", {} sent{rounds}", words::bytes(sent.p50)));
    let sure = forecast
        .converges_ratio
        .known()
        .map_or(String::new(), |ratio| format!("; completes in {:.0} %", ratio * 100.0));
    let duration = forecast.total_seconds.known().map(spread);
    add(
        "migration",
        Some(format!("{}{sent}{sure}", duration.unwrap_or_else(|| "does not complete".to_owned()))),
    );
    let limit = forecast
        .downtime_limit_seconds
        .known()
        .map_or(String::new(), |limit| format!("; downtime limit {}", words::seconds(*limit)));
    add("blackout", forecast.blackout_seconds.known().map(|blackout| format!("{}{limit}", spread(blackout))));
    // A network that follows within a moment adds nothing that a person would miss.
    let differs = |silence: &Quantiles| {
        forecast.blackout_seconds.known().is_none_or(|blackout| silence.p50 - blackout.p50 >= 0.1)
    };
    let silence = forecast.silence_seconds.known().filter(|silence| differs(silence));
    add(
        "silence",
        silence
            .zip(forecast.silence_parts.known())
            .map(|(silence, parts)| format!("{}: {parts}", spread(silence))),
    );
    add("run by", forecast.managed.known().and_then(Option::as_ref).map(words::managed));
    add("limited by", forecast.limited_by.known().cloned());
    add("advice", forecast.advice.known().cloned());
    lines
}

fn spread(figure: &Quantiles) -> String {
    format!(
        "{} ({} to {})",
        words::seconds(figure.p50),
        words::seconds(figure.p5),
        words::seconds(figure.p95)
    )
}

/// Shares of the whole as block characters, at most [`WIDEST`] columns.
fn blocks(shares: &[f64]) -> String {
    let columns = shares.len().min(WIDEST);
    let at = |column: usize| shares.get(column * shares.len() / columns.max(1)).copied().unwrap_or(0.0);
    let eighths = |share: f64| (share.clamp(0.0, 1.0) * 8.0).ceil();
    // Compared and not cast: at most nine blocks.
    let block = |share: f64| {
        let level = (0_u8..9).find(|level| f64::from(*level) >= eighths(share)).unwrap_or(8);
        BLOCKS.get(usize::from(level)).copied().unwrap_or(' ')
    };
    (0..columns).map(|column| block(at(column))).collect()
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn blocks_are_as_high_as_what_is_left() {
        assert_eq!(blocks(&[1.0, 0.5, 0.13, 0.01, 0.0]), "█▄▂▁ ");
        assert_eq!(blocks(&[]), "");
        assert_eq!(blocks(&[f64::NAN]).chars().count(), 1);
        assert_eq!(blocks(&vec![1.0; 200]).chars().count(), WIDEST);
    }

    #[test]
    fn a_replayed_forecast_is_shown_and_an_assumed_one_is_not() {
        let written = |verdict: &Verdict| {
            let mut out = Vec::new();
            write(verdict, &mut out, &Style::default()).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut verdict = sample::go();
        let text = written(&verdict);
        assert!(
            text.contains("left to send") && text.contains("blackout      0.9 s (0.3 s to 2.4 s)"),
            "{text}"
        );
        verdict.forecast = Some(Forecast::default());
        assert_eq!(written(&verdict), "");
    }
}
