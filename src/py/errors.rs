//! The exceptions Python sees, and which error of the core becomes which. All are `ValueError`s, so that code
//! which knows nothing of tlbcore catches them too; the text is the core's own.

use pyo3::{create_exception, exceptions::PyValueError};

create_exception!(tlbcore, TlbcoreError, PyValueError, "Input that tlbcore refuses; base of the others.");

macro_rules! exceptions {
    ($($name:ident: $doc:literal;)*) => {
        $(create_exception!(tlbcore, $name, TlbcoreError, $doc);)*
    };
}

// One line per exception; `docs/errors.md` repeats this list and is tested against it.
exceptions! {
    ConfigError: "A kernel, scenario or analysis is configured with values that do not fit together.";
    TlbError: "A TLB geometry, machine preset, page or PCID that no CPU has.";
    ImageError: "A kernel image that cannot be read, or whose paths cannot be walked.";
    PolicyError: "A policy, litmus test or schedule whose text does not parse or assemble.";
    TraceError: "A trace that cannot be read, or lacks what the question needs.";
    CheckError: "A check whose bounds or assumptions cannot be explored.";
    SimError: "A simulation that cannot start or continue.";
    SweepError: "A sweep whose grid or output directory cannot be used.";
}

macro_rules! error_becomes {
    ($($core:path => $python:ident;)*) => {
        $(impl From<$core> for pyo3::PyErr {
            fn from(error: $core) -> Self {
                $python::new_err(error.to_string())
            }
        })*
    };
}

// One line per error enum of the core, as `crate::hw::TlbError => TlbError;`. With it `?` carries the error to
// Python.
error_becomes! {
    crate::addresses::AddressError => TraceError;
    crate::binary::BinaryError => ImageError;
    crate::check::promela::ExportError => PolicyError;
    crate::check::CheckError => CheckError;
    crate::check::litmus::LitmusError => PolicyError;
    crate::hw::TlbError => TlbError;
    crate::kernel::text::PolicyError => PolicyError;
    crate::trace::TraceError => TraceError;
}
