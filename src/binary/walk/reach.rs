//! Which functions lead to an atomic of context tracking. Between the two atomics the others are passed over like those
//! outside of noinstr text: what they do is not listed, and neither is which way they take.

use iced_x86::{FlowControl, OpKind};
use rustc_hash::FxHashSet;

use super::Walker;

/// How the functions of context tracking begin, in which the atomics are.
const OF_TRACKING: [&str; 2] = ["ct_", "__ct_"];

impl Walker<'_, '_> {
    /// Is a function that is called between the atomics not followed?
    pub(super) fn passed_over(&mut self, target: u64) -> bool {
        if self.kernel.instrumented(target) {
            return true;
        }
        // Entry code has labels and jumps rather than functions.
        if !self.kernel.in_noinstr(target) {
            return false;
        }
        if let Some(leads) = self.leads.get(&target) {
            return !leads;
        }
        let leads = self.reaches_tracking(target);
        self.leads.insert(target, leads);
        !leads
    }

    /// Can code that starts here come to context tracking? Calls, branches, keys and replacements are followed whichever
    /// way they go; what cannot be read counts as leading there, so that the walk names it.
    fn reaches_tracking(&mut self, start: u64) -> bool {
        let mut seen = FxHashSet::default();
        // Where to go on, and where the text ends: a replacement lies among others.
        let mut pending = vec![(start, u64::MAX)];
        while let Some((ip, end)) = pending.pop() {
            if ip >= end || !seen.insert(ip) {
                continue;
            }
            let function = self.kernel.symbols.at(ip);
            if function.is_some_and(|s| OF_TRACKING.iter().any(|p| s.name.starts_with(p))) {
                return true;
            }
            if self.kernel.instrumented(ip) && self.kernel.symbols.at(ip).is_some_and(|s| s.address == ip) {
                continue;
            }
            let Ok(i) = self.decode(ip, "context tracking") else { return true };
            if let Some(jump) = self.kernel.patches.jumps.get(&ip) {
                pending.push((jump.target, u64::MAX));
            }
            if let Some(a) = self.kernel.patches.alternatives.get(&ip)
                && a.len > 0
            {
                pending.push((a.code, a.code + u64::from(a.len)));
            }
            let goes_on = !matches!(
                i.flow_control(),
                FlowControl::Return
                    | FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Exception
                    | FlowControl::Interrupt
            );
            // A call at the end of a function does not return: what is behind it is another one.
            let next = i.next_ip();
            let another = self.kernel.symbols.at(next).is_some_and(|s| s.address == next);
            if goes_on && !(another && self.kernel.in_noinstr(next)) {
                pending.push((next, end));
            }
            if i.op_count() > 0 && i.op0_kind() == OpKind::NearBranch64 {
                pending.push((i.near_branch64(), u64::MAX));
            }
        }
        false
    }
}
