//! A run's state as bytes, and a run that goes on from them.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::{Compression, bufread::GzDecoder, bufread::GzEncoder};
use sha2::{Digest, Sha256};

use super::super::engine::Saved;
use super::super::error::SimError;
use super::Run;
use crate::bounded::{RATIO, WHOLE, bounded};

const CHECKPOINT_VERSION: u32 = 7;
/// Digest of the sources that decide what a run counts: a run does not go on under other rules.
const ENGINE: &str = env!("TLBCORE_ENGINE");
const CHECKPOINT_MARK: &[u8] = b"tlbcore checkpoint\n";

/// The error of a run that went on from a state that no run can be in, with how that showed.
pub fn contradiction(how: &str) -> SimError {
    let how = how.trim_start_matches("panic: ");
    let said = if how.is_empty() { String::new() } else { format!(" ({how})") };
    SimError::Scenario(format!("checkpoint: its state contradicts itself, so no run wrote it{said}"))
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Checkpoint {
    version: u32,
    #[serde(default)]
    engine: String,
    inputs: String,
    state: Saved,
}

impl Run {
    /// The state as bytes that [`Run::resume`] takes: a mark, the digest of the rest, and the rest.
    pub fn checkpoint(&self) -> Vec<u8> {
        let state = self.engine.save();
        let whole = Checkpoint {
            version: CHECKPOINT_VERSION,
            engine: ENGINE.to_owned(),
            inputs: self.inputs(),
            state,
        };
        let json = serde_json::to_vec(&whole).expect("plain data");
        let mut packed = Vec::new();
        // Not Zstandard, whose half that packs would be in the wheel for this alone.
        GzEncoder::new(json.as_slice(), Compression::fast()).read_to_end(&mut packed).expect("memory");
        [CHECKPOINT_MARK, Sha256::digest(&packed).as_slice(), &packed].concat()
    }

    /// Goes on from a checkpoint of a run with the same inputs.
    pub fn resume(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let fail = |text: String| SimError::Scenario(format!("checkpoint: {text}"));
        let sealed = bytes.strip_prefix(CHECKPOINT_MARK).and_then(|rest| rest.split_at_checked(32));
        let Some((digest, packed)) = sealed else { return Err(fail("not a checkpoint, or damaged".into())) };
        if Sha256::digest(packed).as_slice() != digest {
            return Err(fail("damaged: its digest is not that of its content".into()));
        }
        let mut json = Vec::new();
        bounded(packed, RATIO, WHOLE, |packed| Ok(GzDecoder::new(io::BufReader::new(packed))))
            .and_then(|mut decoder| decoder.read_to_end(&mut json))
            .map_err(|e| fail(format!("damaged: {e}")))?;
        let json = String::from_utf8(json).map_err(|e| fail(format!("damaged: {e}")))?;
        let whole: Checkpoint = serde_json::from_str(&json).map_err(|e| fail(format!("damaged: {e}")))?;
        if whole.version != CHECKPOINT_VERSION {
            return Err(fail(format!("has version {}, this is {CHECKPOINT_VERSION}", whole.version)));
        }
        if whole.engine != ENGINE {
            return Err(fail("was written by another build, which may count otherwise".into()));
        }
        if whole.inputs != self.inputs() {
            return Err(fail("is of a run with other inputs".into()));
        }
        // Sizes are compared; what states say of each other is not: one that is made by hand may break what the engine
        // relies on, here or in any later block (`contradiction`).
        let restored = catch_unwind(AssertUnwindSafe(|| self.engine.restore(whole.state)));
        match restored {
            Ok(true) => {
                (self.interrupted, self.starved) = (false, false);
                Ok(())
            }
            Ok(false) => Err(fail("does not fit this run".into())),
            Err(_) => Err(contradiction("")),
        }
    }

    /// Everything that decides the results, as text.
    fn inputs(&self) -> String {
        let i = &self.input;
        let scenario = serde_json::to_string(&i.scenario).expect("plain data");
        let kernel = serde_json::to_string(&i.kernel).expect("plain data");
        let policy = crate::kernel::text::print(&i.policy);
        format!(
            "{scenario} {kernel} {} {} {:?} {:?} {:?} {policy} {} {} {} {:?}",
            i.machine.name,
            i.machine.mhz,
            i.machine.features,
            i.machine.costs,
            i.machine.geometry,
            i.seed,
            i.keep,
            i.full,
            i.bound
        )
    }
}
