//! The continent of each country: GeoIP databases of countries alone don't say.

use super::Code;

/// By continent; the codes of ISO 3166, and XK.
const ALL: [(&str, &str); 7] = [
    (
        "AF",
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW",
    ),
    ("AN", "AQ BV GS HM TF"),
    (
        "AS",
        "AE AF AM AZ BD BH BN BT CC CN CX CY GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV MY NP OM PH PK PS QA SA SG SY TH TJ TL TM TR TW UZ VN YE",
    ),
    (
        "EU",
        "AD AL AT AX BA BE BG BY CH CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK",
    ),
    (
        "NA",
        "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC TT US VC VG VI",
    ),
    ("OC", "AS AU CK FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS"),
    ("SA", "AR BO BR CL CO EC FK GF GY PE PY SR UY VE"),
];

/// The continent of `country`.
pub(super) fn of(country: Code) -> Option<Code> {
    let lies_on = |countries: &str| countries.split(' ').any(|code| code == country.as_str());
    ALL.iter().find(|(_, countries)| lies_on(countries)).and_then(|(continent, _)| continent.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_country_lies_on_one() {
        let all: Vec<&str> = ALL.iter().flat_map(|(_, countries)| countries.split(' ')).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        // ISO 3166-1 has 249; XK is not among them.
        assert_eq!(all.len(), 250);
        let of = |code: &str| of(code.parse().unwrap()).map(|code| code.to_string());
        assert_eq!(of("DE").as_deref(), Some("EU"));
        assert_eq!(of("AF").as_deref(), Some("AS"));
        assert_eq!(of("ZZ"), None);
    }
}
