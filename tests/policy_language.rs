//! `docs/policy-language.md` is true: its policies assemble, and so does every statement of its table.

use tlbcore::kernel::policy::load;
use tlbcore::kernel::program::Features;
use tlbcore::kernel::text::parse;

const PAGE: &str = include_str!("../docs/policy-language.md");

fn assembles(text: &str) {
    let file = parse("policy-language.md", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    load(&file, Features::PTI_PCID).unwrap_or_else(|e| panic!("{e}\n{text}"));
}

#[test]
fn every_policy_of_the_page_assembles() {
    let policies: Vec<&str> =
        PAGE.split("```policy\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!policies.is_empty());
    policies.into_iter().for_each(assembles);
}

#[test]
fn every_statement_of_the_table_assembles() {
    let table = PAGE.split("## Statements").nth(1).unwrap().split("## Tests").next().unwrap();
    let statements: Vec<&str> = table
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .filter(|first| *first != "Statement")
        .collect();
    assert!(statements.len() > 25);
    for statement in statements {
        assembles(&format!(
            "policy example\n  var v : 1 bit, per cpu\n  site NAME\n  page p : vmalloc\n\nflush_kernel_range\n  each cpu in others\n    \
             let y = 0\n    {statement}\n\nfree_it\n  fence\n"
        ));
    }
}
