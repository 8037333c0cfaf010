//! Searches: docker's form, and the catalog of who does not know it.

use integration::registry::{Debian, Instead};
use integration::skip;

use super::*;
use crate::error::Kind;

fn search(host: &str, term: &str, most: usize) -> Result<Vec<String>> {
    let registry = Registry::new(config()).unwrap();
    run(registry.search(host, term, most, Access::default()))
        .map(|found| found.into_iter().map(|it| format!("{} {} {}", it.name, it.stars, it.is_official)).collect())
}

fn answer(to: &str, body: &str) -> Instead {
    Instead { body: body.into(), ..Instead::new(to, 200) }
}

#[test]
fn a_registry_that_answers_searches_is_believed_in_its_order() {
    let served = Served::start();
    let body = r#"{"num_results": 2, "results": [{"name": "b/app", "description": "x", "star_count": 3, "is_official": true}, {"name": "a"}]}"#;
    served.faults(|it| it.instead = [answer("GET /v1/search", body)].into());
    assert_eq!(search(&served.host(), "a b&n=9", 2).unwrap(), ["b/app 3 true", "a 0 false"]);
    assert_eq!(served.seen("/v1/search?q=a%20b%26n%3D9&n=2").len(), 1);
    served.faults(|it| it.instead = [answer("GET /v1/search", body)].into());
    assert_eq!(search(&served.host(), "x", 1).unwrap().len(), 1, "no more than was asked for");
    assert_eq!(search(&served.host(), "x", 101).unwrap_err().kind, Kind::InvalidArgument);
}

#[test]
fn without_searches_the_catalog_is_looked_through() {
    let served = Served::start();
    let next = vec![("link", "</v2/_catalog?n=1000&last=b>; rel=\"next\"".to_owned())];
    let first = Instead { headers: next, ..answer("GET /v2/_catalog", r#"{"repositories": ["app", "b"]}"#) };
    let second = answer("GET /v2/_catalog", r#"{"repositories": ["team/app"]}"#);
    served.faults(|it| it.instead = [Instead::new("GET /v1/search", 404), first, second].into());
    assert_eq!(search(&served.host(), "app", 0).unwrap(), ["app 0 false", "team/app 0 false"]);
    // What is no answer to a search (a page for people) is none either.
    let list = answer("GET /v2/_catalog", r#"{"repositories": ["app"]}"#);
    served.faults(|it| it.instead = [answer("GET /v1/search", "<html>"), list].into());
    assert_eq!(search(&served.host(), "app", 0).unwrap(), ["app 0 false"]);
    served.faults(|it| it.instead = [Instead::new("GET /v1", 404), Instead::new("GET /v2/_catalog", 404)].into());
    says(&search(&served.host(), "app", 0).unwrap_err(), &[&served.host(), "list the repositories", "404"]);
}

#[test]
fn debians_registry_lists_what_it_has() {
    let Some(served) = Debian::start() else { skip!("the package docker-registry is not installed") };
    assert!(search(served.host(), "app", 0).unwrap().is_empty());
}
