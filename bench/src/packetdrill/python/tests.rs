//! What assertions may say.

use super::{Failure, Value, Variables, parse, run};

fn outcome(code: &str) -> Result<(), Failure> {
    let mut variables = Variables::new();
    variables.insert("tcpi_snd_cwnd".to_owned(), Value::Int(10));
    variables.insert("tcpi_rtt".to_owned(), Value::Int(100_500));
    run(&parse(code).expect("supported"), &mut variables)
}

#[test]
fn what_holds_passes() {
    for code in [
        "assert tcpi_snd_cwnd == 10, tcpi_snd_cwnd",
        "assert 9 <= tcpi_snd_cwnd <= 11",
        "assert abs(tcpi_rtt - 100000) < 1000; assert tcpi_rtt / 1000 > 100",
        "\nassert tcpi_snd_cwnd == 10, 'cwnd=%d' % tcpi_snd_cwnd # a remark\nassert not (tcpi_rtt < 5 or False)\n",
        "x = tcpi_snd_cwnd * 2 + 1\nassert x == 21 and x >> 1 == 10, x",
        "x = 1; x += tcpi_snd_cwnd; x -= 2\nassert x == 9, x",
        "assert tcpi_snd_cwnd in (9, 10), \\\n   tcpi_snd_cwnd",
        "assert (tcpi_snd_cwnd & 2) != 0; print(tcpi_rtt)",
        "assert 7 // 2 == 3 and -7 // 2 == -4 and -7 % 3 == 2 and 2 ** 3 == 8 and 7 / 2 == 3.5",
        "assert min(3, 2, 5) == 2 and max((1, 4)) == 4 and 0x10 == 16 and 1e3 == 1000",
        "assert (1 if tcpi_rtt > 0 else 0) == 1\npass",
    ] {
        assert_eq!(outcome(code), Ok(()), "{code}");
    }
}

#[test]
fn what_does_not_hold_says_so_with_its_line() {
    let failure = outcome("assert True\n\nassert tcpi_snd_cwnd == 11, (tcpi_snd_cwnd, 'segments')");
    assert_eq!(failure, Err(Failure::Assertion { line: 2, message: "(10, segments)".to_owned() }));
}

#[test]
fn what_is_unknown_or_wrong_is_told_apart() {
    assert_eq!(outcome("assert tcpi_colour == 1"), Err(Failure::Unknown("tcpi_colour".to_owned())));
    assert!(matches!(outcome("assert 1 / 0"), Err(Failure::Error(_))));
    assert!(matches!(outcome("assert 'a' < 1"), Err(Failure::Error(_))));
}

#[test]
fn what_is_not_supported_is_named() {
    for (code, name) in [
        ("for i in range(3): pass", "for"),
        ("assert math.floor(1.5) == 1", "math."),
        ("assert open('x')", "open()"),
        ("assert [x for x in (1,)]", "for"),
        ("assert 1 +", "end"),
    ] {
        let refused = parse(code).expect_err(code);
        assert!(refused.contains(name), "{code}: {refused}");
    }
    assert!(parse(&format!("assert {}1{}", "(".repeat(500), ")".repeat(500))).is_err(), "nesting is bounded");
    assert!(parse(&format!("assert {}1", "-".repeat(500))).is_err());
}
