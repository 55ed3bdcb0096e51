//! Sets and walks over them, against one member after the other.

use super::*;
use crate::hw::Preset;
use crate::kernel::policy::{builtin, load_with};
use crate::kernel::program::Features;
use crate::sim::cost::{Bound, Times};
use crate::sim::draw::Draws;

fn timed(cpus: Cpu, isolated: &[Cpu], flush_mask: &[Cpu], sockets: u16) -> Timed {
    let (features, preset) = (Features::PTI_PCID, Preset::builtin("skylake-sp").unwrap());
    let code = load_with(&builtin("ipi").unwrap(), &["flush_mm"], features).unwrap();
    let times = Times::new(&code, &preset, features, Bound::Best);
    Timed::new(&code, features, times, &Layout { cpus, isolated, flush_mask, sockets, keep: 0 })
}

#[test]
fn each_set_has_its_members() {
    let mut m = timed(130, &[64, 65, 129], &[3, 65], 2);
    let mm = m.contexts.create().unwrap();
    m.cores[64].request.mm = mm;
    for who in [3, 64, 128] {
        m.contexts.mask(u64::from(mm), who, true).unwrap();
    }
    for who in [0u16, 63, 64, 129] {
        m.targets[64 * m.words + usize::from(who) / 64] |= 1 << (who % 64);
    }
    let members = |set| (0..130).filter(|who| m.in_set(64, set, *who)).collect::<Vec<Cpu>>();
    assert_eq!(members(Set::Online).len(), 130);
    assert_eq!((members(Set::Others).len(), members(Set::Others).contains(&64)), (129, false));
    assert_eq!((members(Set::Housekeeping).len(), members(Set::Housekeeping).contains(&64)), (127, false));
    assert_eq!(members(Set::NohzFull), [64, 65, 129]);
    assert_eq!(members(Set::FlushMask), [3, 65]);
    assert_eq!(members(Set::MmCpumask), [3, 128], "but who looks");
    assert_eq!(members(Set::Targets), [0, 63, 64, 129]);
    assert_eq!(m.count_targets(64), 4);
    assert_eq!((m.count_targets(63), m.next_target(63, 0)), (0, None), "another's");
    for set in [Set::Online, Set::Others, Set::Housekeeping, Set::NohzFull, Set::MmCpumask, Set::Targets] {
        for from in 0..131 {
            let next = members(set).into_iter().find(|who| *who >= from);
            assert_eq!(m.next_member(64, set, from), next, "{set:?} from {from}");
        }
    }
    assert!(m.is_near(0, 64) && m.is_near(65, 129) && !m.is_near(64, 65), "two sockets of 65");
}

#[test]
fn who_has_had_a_call_leaves_the_targets_and_comes_back() {
    let mut m = timed(70, &[], &[], 1);
    for who in [1, 2, 65] {
        m.targets[2 * 5 + usize::from(who as Cpu) / 64] |= 1 << (who % 64);
    }
    m.volleys.had = vec![1 << 2, 1 << 1];
    m.had_are_targets(5, false);
    assert_eq!((m.words_of(5), m.words_of(4)), (&[1 << 1, 0][..], &[0, 0][..]));
    m.had_are_targets(5, true);
    assert_eq!(m.words_of(5), [1 << 1 | 1 << 2, 1 << 1]);
}

/// A walk one member after the other: up to the first that looks another way, or is not quiet until it was looked at.
fn one_by_one(m: &mut Timed, cpu: Cpu, of: Set, look: Look, until: u64) -> Option<Cpu> {
    let (mut clock, mut place, mut last) =
        (m.cores[usize::from(cpu)].clock, m.cores[usize::from(cpu)].loop_next, None);
    while usize::from(place) < m.cores.len() {
        let who = usize::from(place);
        if m.in_set(cpu, of, place) {
            let alike = m.sets_of(place) == look.sets && m.packed_vars(place) == look.vars;
            if place == cpu || !alike || m.quiet[who] <= clock || clock + look.cost >= until {
                break;
            }
            clock += look.cost;
            last = Some(place);
            if look.put {
                m.targets[usize::from(cpu) * m.words + who / 64] |= 1 << (place % 64);
            }
        }
        place += 1;
    }
    (m.cores[usize::from(cpu)].clock, m.cores[usize::from(cpu)].loop_next) = (clock, place);
    last
}

#[test]
fn a_walk_that_repeats_is_one_member_after_the_other() {
    let (mut whole, mut stopped) = (0, 0);
    for n in 0..3000u64 {
        let mut d = Draws::new(n, 1, 9);
        let cpus = [1, 5, 64, 65, 130, 200, 260][d.below(7) as usize];
        let split = d.below(u64::from(cpus) + 1) as Cpu;
        let isolated: Vec<Cpu> = if d.below(3) > 0 { (split..cpus).collect() } else { Vec::new() };
        let mask: Vec<Cpu> = if d.below(2) > 0 { isolated.clone() } else { Vec::new() };
        let mut m = timed(cpus, &isolated, &mask, 1);
        let stride = 1 + d.below(4) as usize;
        (m.vars, m.values) = (stride, vec![3; stride * usize::from(cpus)]);
        m.quiet.fill(1_000_000);
        let cpu = d.below(u64::from(cpus)) as Cpu;
        for _ in 0..d.below(4) {
            let who = d.below(u64::from(cpus)) as usize;
            match d.below(3) {
                0 => m.values[who * stride + d.below(stride as u64) as usize] = 4,
                1 => m.quiet[who] = d.below(3000),
                _ => m.sets[who] ^= 1 << d.below(3),
            }
        }
        // Who walks runs, and is not quiet: now and then it says so.
        if d.below(4) > 0 {
            m.quiet[usize::from(cpu)] = 0;
        }
        m.cores[usize::from(cpu)].clock = d.below(1000);
        m.cores[usize::from(cpu)].loop_next = (d.below(3) * d.below(u64::from(cpus))) as Cpu % cpus;
        let of =
            [Set::Online, Set::Others, Set::Housekeeping, Set::NohzFull, Set::FlushMask][d.below(5) as usize];
        let sets = m.sets_of(if isolated.is_empty() { 0 } else { isolated[0] });
        let vars = pack(&vec![3; stride]);
        let look = Look { sets, vars, cost: d.below(12), put: d.below(2) > 0 };
        let until = [700, 2000, 1 << 40][d.below(3) as usize];
        let mut plain = m.clone();
        let (last, expected) = (m.repeat(cpu, of, look, until), one_by_one(&mut plain, cpu, of, look, until));
        let at = |m: &Timed| (m.cores[usize::from(cpu)].clock, m.targets.clone());
        assert_eq!((last, at(&m)), (expected, at(&plain)), "{n}: {of:?} of {cpus} by {cpu}");
        let (next, plainly) = (m.cores[usize::from(cpu)].loop_next, plain.cores[usize::from(cpu)].loop_next);
        // Behind the last that was looked at only such as are no members are passed over.
        assert!(
            (next.min(plainly)..next.max(plainly)).all(|who| !m.in_set(cpu, of, who)),
            "{n}: {next} {plainly}"
        );
        whole += u32::from(plainly >= cpus);
        stopped += u32::from(plainly < cpus && expected.is_some());
    }
    assert!(whole > 300 && stopped > 300, "{whole} {stopped}");
}

#[test]
fn a_walk_over_an_address_space_is_one_member_after_the_other() {
    let mut some = 0;
    for n in 0..1500u64 {
        let mut d = Draws::new(n, 2, 9);
        let cpus = [2, 64, 70, 200][d.below(4) as usize];
        let mut m = timed(cpus, &[], &[], 1);
        let stride = 1 + d.below(4) as usize;
        (m.vars, m.values) = (stride, vec![3; stride * usize::from(cpus)]);
        m.quiet.fill(1_000_000);
        let mm = m.contexts.create().unwrap();
        for who in 0..cpus {
            if d.below(3) > 0 {
                m.contexts.mask(u64::from(mm), who, true).unwrap();
            }
        }
        for _ in 0..d.below(3) {
            let who = d.below(u64::from(cpus)) as usize;
            match d.below(3) {
                0 => m.values[who * stride + d.below(stride as u64) as usize] = 4,
                1 => m.quiet[who] = d.below(2000),
                _ => m.sets[who] ^= 1 << d.below(3),
            }
        }
        let cpu = d.below(u64::from(cpus)) as Cpu;
        let c = &mut m.cores[usize::from(cpu)];
        (c.request.mm, c.clock, c.loop_next) = (mm, d.below(900), d.below(u64::from(cpus)) as Cpu);
        let look = Look {
            sets: HOUSEKEEPING,
            vars: pack(&vec![3; stride]),
            cost: 1 + d.below(12),
            put: d.below(2) > 0,
        };
        let until = [700, 2000, 1 << 40][d.below(3) as usize];
        let mut plain = m.clone();
        let last = m.repeat(cpu, Set::MmCpumask, look, until);
        let expected = one_by_one(&mut plain, cpu, Set::MmCpumask, look, until);
        let at = |m: &Timed| (m.cores[usize::from(cpu)].clock, m.targets.clone());
        assert_eq!((last, at(&m)), (expected, at(&plain)), "{n}");
        some += u32::from(last.is_some());
    }
    assert!(some > 700, "{some}");
}
