//! The small scorecard against the last one kept: nothing may become worse. After a change for the better, keep it:
//! `cargo run -p sim -- scorecard --small --seeds 20 --loss 0,50 --out sim/tests/scorecard`.

use sim::scorecard::{Card, all, page, pairs, regressions, small};

const SEEDS: u64 = 20;

#[test]
fn nothing_is_worse_than_in_the_scorecard_kept() {
    let kept: Card = serde_json::from_str(include_str!("scorecard/scorecard.json")).unwrap();
    let mut wanted = pairs(&small(), 0, SEEDS);
    wanted.extend(pairs(&small(), 50_000, SEEDS));
    let card = Card::measure(&wanted);
    assert_eq!(card.cells.len(), wanted.len());
    let worse = regressions(&kept, &card);
    assert!(worse.is_empty(), "{}", worse.join("\n"));
    let page = page(&card);
    assert!(!page.contains("http"), "the page needs nothing from elsewhere");
    for cell in &card.cells {
        assert_eq!(cell.direct_share > 0.0, cell.possible, "{cell:?}");
    }
}

#[test]
fn nothing_that_must_never_happen_does_in_any_pair() {
    let card = Card::measure(&pairs(&all(), 0, 1));
    assert!(card.cells.len() >= 1_000);
    let violated: Vec<_> = card.cells.iter().filter(|cell| cell.violated > 0).collect();
    assert!(violated.is_empty(), "{violated:#?}");
}
