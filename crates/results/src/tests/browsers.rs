//! Metrics of Artillery's engine `playwright`.

use super::*;

#[test]
fn summary_has_pages_and_steps_of_browsers() {
    let bins = |n: u32| format!("[0,1,1,{n},0,[1,{n}],[]]");
    let steps: Vec<_> = (0..30)
        .map(|n| format!(r#""browser.step.{n}":{}"#, bins(1)))
        .collect();
    // Bin -149 has the values around 0.051.
    let json = format!(
        r#"{{"counters":{{"browser.http_requests":6,"browser.page.codes.200":4,"browser.page.codes.404":1,"http.codes.200":2}},
            "histograms":{{"browser.page.LCP.http://t/":{},"browser.page.CLS.http://t/":[0,0.0512,0.0512,0.1024,0,[-149,2],[]],
            "browser.page.other":{},"browser.step.a.response_time":{},{}}}}}"#,
        bins(5),
        bins(9),
        bins(8),
        steps.join(",")
    );
    let results = summarize(&parse(&message(&json)).unwrap(), 1, 0);
    assert_eq!((results.requests, results.responses), (6, 5));
    let codes: Vec<_> = results
        .codes
        .iter()
        .map(|code| (code.name.as_str(), code.count))
        .collect();
    assert_eq!(codes, [("200", 6), ("404", 1)]);
    let names: Vec<_> = results
        .histograms
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names.len(), 20, "the most frequent ones");
    assert_eq!(
        names[..3],
        [
            "browser.page.CLS.http://t/",
            "browser.page.LCP.http://t/",
            "browser.step.0"
        ]
    );
    assert!(names.contains(&"browser.step.a.response_time"));
    let shift = &results.histograms[0];
    assert_eq!(
        (shift.p50, shift.max, shift.mean),
        (Some(0.05), Some(0.051), Some(0.051))
    );
    assert!(!shift.is_time() && results.histograms[1].is_time());
    assert_eq!(results.p95, None, "a step is no response time");
}
