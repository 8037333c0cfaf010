//! The rules of devices and the program that guards them, run as the kernel would.

use super::super::bpf::{self, Instruction};
use super::super::devices::{Access, Effect};
use super::{lower_in, v2};

/// What the kernel does with the program: a small machine for the instructions it uses.
fn run(program: &[Instruction], sort: u32, uses: u32, major: u32, minor: u32) -> u32 {
    let context = [uses << 16 | sort, major, minor];
    let mut registers = [0_u32; 11];
    let mut at = 0_usize;
    for _ in 0..10_000 {
        let op = program[at];
        let (to, from) = ((op.registers & 15) as usize, (op.registers >> 4) as usize);
        at += 1;
        let jump = match op.code {
            bpf::LOAD_WORD => {
                assert_eq!(from, 1);
                registers[to] = context[usize::try_from(op.offset / 4).unwrap()];
                false
            }
            bpf::MOVE_REGISTER => {
                registers[to] = registers[from];
                false
            }
            bpf::MOVE_VALUE => {
                registers[to] = op.value.cast_unsigned();
                false
            }
            bpf::AND_VALUE => {
                registers[to] &= op.value.cast_unsigned();
                false
            }
            bpf::SHIFT_RIGHT => {
                registers[to] >>= op.value;
                false
            }
            bpf::JUMP => true,
            bpf::JUMP_NOT_EQUAL => registers[to] != op.value.cast_unsigned(),
            bpf::JUMP_ANY_BIT => registers[to] & op.value.cast_unsigned() != 0,
            bpf::EXIT => return registers[0],
            code => panic!("instruction {code:#x}"),
        };
        if jump {
            at += usize::try_from(op.offset).unwrap();
        }
    }
    panic!("the program does not end")
}

fn access(rules: &str) -> Access {
    lower_in(&v2(), &format!(r#"{{"resources": {{"devices": {rules}}}}}"#)).unwrap().devices
}

const BLOCK: u32 = 1;
const CHAR: u32 = 2;
const M: u32 = 1;
const R: u32 = 2;
const W: u32 = 4;

#[test]
fn the_program_decides_as_the_rules_say() {
    let deny_all = r#"{"allow": false, "access": "rwm"}"#;
    let allow_all = r#"{"allow": true, "access": "rwm"}"#;
    let sda = r#"{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}"#;
    let far = r#"{"allow": true, "type": "c", "major": 4294967295, "minor": 4294967294, "access": "rw"}"#;
    let no_kmsg = r#"{"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}"#;
    let no_sda = r#"{"allow": false, "type": "b", "major": 8, "access": "rw"}"#;
    let some_sda = r#"{"allow": true, "type": "b", "major": 8, "access": "w"}"#;
    for (rules, decisions) in [
        (
            "[]".to_owned(),
            vec![
                ((CHAR, R | W, 1, 3), true),
                ((CHAR, R | W, 1, 11), false),
                ((CHAR, M, 77, 77), true),
                ((BLOCK, M, 77, 77), true),
                ((CHAR, M | R, 77, 77), false),
                ((CHAR, R | W, 136, 9), true),
                ((BLOCK, R, 136, 9), false),
                ((CHAR, R | W, 10, 200), true),
                ((CHAR, R | W, 5, 2), true),
                ((CHAR, R | W, 5, 1), false),
                ((BLOCK, R, 8, 0), false),
            ],
        ),
        (
            format!("[{deny_all}, {sda}, {far}]"),
            vec![
                ((BLOCK, R, 8, 0), true),
                ((BLOCK, R | W, 8, 0), false),
                ((BLOCK, W, 8, 0), false),
                ((BLOCK, R, 8, 1), false),
                ((CHAR, R | W, u32::MAX, u32::MAX - 1), true),
                ((CHAR, R | W, u32::MAX, u32::MAX), false),
                ((CHAR, R | W, 1, 5), true),
            ],
        ),
        (format!("[{allow_all}]"), vec![((BLOCK, R | W | M, 8, 0), true), ((CHAR, R, 1, 11), true)]),
        (
            format!("[{allow_all}, {no_kmsg}, {no_sda}, {some_sda}]"),
            vec![
                ((CHAR, R, 1, 11), true),
                ((CHAR, W, 1, 11), false),
                ((CHAR, R | W, 1, 11), false),
                ((BLOCK, R, 8, 3), false),
                ((BLOCK, W, 8, 3), true),
                ((BLOCK, R, 9, 3), true),
            ],
        ),
        (format!("[{allow_all}, {deny_all}]"), vec![((BLOCK, R, 8, 0), false), ((CHAR, R | W, 1, 9), true)]),
    ] {
        let program = bpf::compile(&access(&rules));
        for ((sort, uses, major, minor), allowed) in decisions {
            let verdict = run(&program, sort, uses, major, minor);
            assert_eq!(verdict, u32::from(allowed), "{rules}: sort {sort} uses {uses} {major}:{minor}");
        }
    }
}

#[test]
fn a_hole_in_a_wildcard_is_refused() {
    for rules in [
        r#"[{"allow": true, "type": "c", "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "r"}]"#,
        r#"[{"allow": true, "type": "c", "major": 1, "access": "rw"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "r"}]"#,
    ] {
        let error = lower_in(&v2(), &format!(r#"{{"resources": {{"devices": {rules}}}}}"#)).unwrap_err().to_string();
        assert!(error.contains("devices[1] (deny c 1:11 r)") && error.contains("narrower"), "{error}");
    }
}

#[test]
fn a_default_device_that_the_container_redefines_is_not_allowed_by_default() {
    let linux = r#"{"devices": [{"path": "/dev/null", "type": "c", "major": 9, "minor": 9}]}"#;
    let program = bpf::compile(&lower_in(&v2(), linux).unwrap().devices);
    assert_eq!(run(&program, CHAR, R, 1, 3), 0);
    assert_eq!(run(&program, CHAR, R, 1, 5), 1);
}

fn lines(changes: &[super::super::devices::Change]) -> Vec<String> {
    let sign = |effect| if effect == Effect::Allow { '+' } else { '-' };
    changes.iter().map(|change| format!("{}{}", sign(change.effect), change.line)).collect()
}

#[test]
fn a_fresh_controller_is_reset_and_filled() {
    let changes = lines(&access("[]").changes());
    assert_eq!(
        changes,
        [
            "-a *:* rwm",
            "+b *:* m",
            "+c *:* m",
            "+c 1:3 rwm",
            "+c 1:5 rwm",
            "+c 1:7 rwm",
            "+c 1:8 rwm",
            "+c 1:9 rwm",
            "+c 5:0 rwm",
            "+c 5:2 rwm",
            "+c 10:200 rwm",
            "+c 136:* rwm",
        ]
    );
}

#[test]
fn a_known_controller_is_changed_without_a_reset() {
    let list = |text| Access::from_list(text).unwrap();
    let few = list("c 1:3 rwm\nc 1:5 rw\nb 8:* r\n");
    for (from, to, expected) in [
        ("c 1:3 rwm\nc 1:5 rw\nb 8:* r\n", &few, &[][..]),
        ("", &few, &["+c 1:3 rwm", "+c 1:5 rw", "+b 8:* r"]),
        ("c 1:3 rwm\nc 1:5 rwm\nc 9:* w\n", &few, &["-c 1:5 m", "-c 9:* w", "+b 8:* r"]),
        ("a *:* rwm\n", &few, &["-a *:* rwm", "+c 1:3 rwm", "+c 1:5 rw", "+b 8:* r"]),
        ("c 1:3 rwm\n", &Access::all(), &["+a *:* rwm"]),
        ("a *:* rwm\n", &Access::all(), &[]),
    ] {
        assert_eq!(lines(&to.changes_from(&list(from))), expected, "{from}");
    }
    assert_eq!(Access::from_list("nonsense"), None);
    assert_eq!(Access::from_list("c x:3 rwm"), None);
}

#[test]
fn a_device_that_is_taken_back_leaves_no_trace() {
    let rule =
        |allow: bool| format!(r#"{{"allow": {allow}, "type": "c", "major": 10, "minor": 229, "access": "rwm"}}"#);
    assert_eq!(access(&format!("[{}, {}]", rule(true), rule(false))), access("[]"));
}
