//! A [`GuessWord`] in bytes: `step`, and for the step `port[2]` or `count ‖ ports[2 × count]`, and what later versions
//! add.

use super::GuessWord;
use crate::limits;
use crate::wire::split;

const ASK: u8 = 1;
const HERE: u8 = 2;
const OPEN: u8 = 3;

/// None if it is too short, or of a step that this version does not know.
pub(super) fn parse(payload: &[u8]) -> Option<GuessWord> {
    let ([step], rest) = split::<1>(payload)?;
    match *step {
        ASK => Some(GuessWord::Ask),
        HERE => split::<2>(rest).map(|(port, _)| GuessWord::Here { port: u16::from_be_bytes(*port) }),
        OPEN => {
            let ([count], rest) = split::<1>(rest)?;
            let ports = rest.get(..2 * usize::from(*count))?.as_chunks::<2>().0;
            let ports = ports.iter().take(limits::GUESS_MEASURE).map(|port| u16::from_be_bytes(*port));
            Some(GuessWord::Open { ports: ports.collect() })
        }
        _ => None,
    }
}

pub(super) fn emit(word: &GuessWord, out: &mut Vec<u8>) {
    match word {
        GuessWord::Ask => out.push(ASK),
        GuessWord::Here { port } => {
            out.push(HERE);
            out.extend_from_slice(&port.to_be_bytes());
        }
        GuessWord::Open { ports } => {
            let ports = ports.get(..limits::GUESS_MEASURE).unwrap_or(ports);
            out.extend_from_slice(&[OPEN, u8::try_from(ports.len()).unwrap_or(0)]);
            ports.iter().for_each(|port| out.extend_from_slice(&port.to_be_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_wire_and_broken_ones_are_none() {
        let words = [GuessWord::Ask, GuessWord::Here { port: 7 }, GuessWord::Open { ports: vec![7, 65_535] }];
        for word in words {
            let mut bytes = Vec::new();
            emit(&word, &mut bytes);
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len]), None);
            }
            bytes.extend_from_slice(b"later");
            assert_eq!(parse(&bytes), Some(word));
        }
        assert_eq!(parse(&[9]), None);
    }
}
