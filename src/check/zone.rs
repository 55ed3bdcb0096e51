//! Which accesses of kernel code an op stands for.

use crate::kernel::program::{Op, Slot, Touch, Zone};

/// The zone an op's access is in, if it is one.
pub fn of(op: Op) -> Option<Zone> {
    match op {
        Op::Touch(Touch::Zone(z)) => Some(z),
        Op::Body(Slot::Syscall | Slot::Interrupt) => Some(Zone::Kernel),
        Op::Body(Slot::Nmi) => Some(Zone::Nmi),
        Op::Body(Slot::Idle) => Some(Zone::Danger),
        _ => None,
    }
}
