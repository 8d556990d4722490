//! The text of a plan file: one JSON document that says its own digest.

use serde::{Deserialize, Serialize};

use super::SavedPlan;
use crate::Value;
use crate::digest::sha256;

/// The version of the file's shape.
pub const FORMAT: u32 = 2;

/// How each file begins. The digest follows, in 64 hexadecimal digits, and it is that of all that follows these.
const BEGIN: &str = "{\"sha256\":\"";

const DIGITS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Body {
    plan: SavedPlan,
}

/// Why a file is no plan that can be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanFileError {
    /// It is something else.
    #[error("it is no plan file of infra, or its beginning was changed")]
    NoPlan,
    /// It is not what was written.
    #[error("it was changed since it was written: its digest is not that of its content")]
    Changed,
    /// Another version of infra made it.
    #[error("it was made by infra {program} (format {format}), and this is infra {own} (format {FORMAT})")]
    OtherVersion {
        /// The version that made it.
        program: String,
        /// The version of its shape.
        format: u64,
        /// The version of this program.
        own: String,
    },
    /// It has another shape, which is a defect of infra since its digest is right.
    #[error("it is not understood: {0}")]
    Wrong(String),
}

/// The text of a plan file. It ends with a newline.
pub fn write(plan: &SavedPlan) -> String {
    #[derive(Serialize)]
    struct BodyRef<'p> {
        plan: &'p SavedPlan,
    }
    let body = serde_json::to_string_pretty(&BodyRef { plan }).expect("a plan is data of the JSON model");
    // Behind the digest the document goes on, without its brace.
    let rest = format!("\",{}\n", body.trim_start_matches('{'));
    format!("{BEGIN}{}{rest}", sha256(rest.as_bytes()))
}

/// Whether a file with this beginning is one of ours.
pub fn is_plan_file(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGIN.as_bytes())
}

/// Reads a plan file; `own` is the version of this program.
///
/// # Errors
/// [`PlanFileError`] when it is something else, was changed, or another version made it.
pub fn read(bytes: &[u8], own: &str) -> Result<SavedPlan, PlanFileError> {
    let behind = bytes.strip_prefix(BEGIN.as_bytes()).ok_or(PlanFileError::NoPlan)?;
    let (digest, rest) = behind.split_at_checked(DIGITS).ok_or(PlanFileError::Changed)?;
    if sha256(rest).as_bytes() != digest {
        return Err(PlanFileError::Changed);
    }
    let wrong = |error: serde_json::Error| PlanFileError::Wrong(error.to_string());
    let document: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    let format = document["plan"]["format"].as_u64().unwrap_or_default();
    let program = document["plan"]["program"].as_str().unwrap_or_default();
    if format != u64::from(FORMAT) || program != own {
        return Err(PlanFileError::OtherVersion { program: program.to_owned(), format, own: own.to_owned() });
    }
    Ok(serde_json::from_value::<Body>(document).map_err(wrong)?.plan)
}
