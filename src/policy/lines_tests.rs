use super::*;

const NOW: Timestamp = Timestamp::from_secs(1000);
const GB: u64 = 1_000_000_000;

fn owner(network: u64) -> Owner {
    Owner::new(network, network)
}

#[test]
fn what_a_line_takes_is_expected_in_full() {
    let lines = Lines::default();
    for second in 0..600 {
        let now = NOW.plus(Duration::from_secs(second));
        assert_eq!(lines.expected(owner(1), 125_000_000, now), 125_000_000, "{second}");
    }
}

#[test]
fn one_file_is_expected_however_large() {
    assert_eq!(Lines::default().expected(owner(1), 12 * GB, NOW), 12 * GB);
}

#[test]
fn what_no_line_takes_is_not_expected_and_its_address_is_believed_again() {
    let lines = Lines::default();
    let mut expected = 0;
    for request in 0..30 * 60 {
        let now = NOW.plus(Duration::from_millis(request * 1000 / 30));
        expected += lines.expected(owner(1), GB, now);
    }
    assert!(expected <= 3 * GB, "{expected} of {}", 30 * 60 * GB);
    let later = NOW.plus(Duration::from_secs(60));
    assert_eq!(lines.expected(owner(1), GB, later), 0);
    assert_eq!(lines.expected(owner(2), GB, later), GB, "others are as they were");
    assert_eq!(lines.expected(owner(1), GB, later.plus(REMEMBERED)), GB);
}

#[test]
fn a_clock_that_is_set_back_and_requests_that_overtake_others_make_no_time_pass() {
    let lines = Lines::default();
    let after = Timestamp::from_millis(NOW.as_millis() + 50);
    lines.expected(owner(1), 5 * GB, after);
    for _ in 0..2000 {
        lines.expected(owner(1), 0, NOW);
        lines.expected(owner(1), 0, after);
    }
    assert_eq!(lines.expected(owner(1), GB, after), 0);
    let back = Timestamp::EPOCH.plus(Duration::from_secs(10));
    lines.expected(owner(1), 0, back);
    assert_eq!(lines.expected(owner(1), GB, back.plus(REMEMBERED)), GB);
}
