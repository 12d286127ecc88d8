use crate::Script;

/// Most runs that one search takes.
const RUNS: usize = 2_000;

/// The shortest script found for which `fails` still holds: events are left out, in ever smaller pieces,
/// for as long as it does.
pub fn shrink(script: &Script, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut piece = best.events.len().div_ceil(2).max(1);
    let mut runs = 0;
    loop {
        let before = best.events.len();
        let mut from = 0;
        while from < best.events.len() && runs < RUNS {
            let mut shorter = best.clone();
            shorter.events.drain(from..(from + piece).min(best.events.len()));
            runs += 1;
            if fails(&shorter) {
                best = shorter;
            } else {
                from += piece;
            }
        }
        if runs >= RUNS || (piece == 1 && best.events.len() == before) {
            return best;
        }
        piece = (piece / 2).max(1);
    }
}
