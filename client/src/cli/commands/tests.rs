use super::*;

#[test]
fn every_definition_is_sound() {
    tree().debug_assert();
}

#[test]
fn commands_are_found_by_all_of_their_names() {
    let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    for entry in ENTRIES {
        for name in entry.words {
            let Ok(Found::Entry(found, taken)) = find(&words(name)) else { panic!("{name} is not found") };
            assert_eq!((found.about, taken), (entry.about, *name), "{name}");
        }
    }
    for (given, expected) in
        [("pss", "but \"ps\""), ("container lss", "but \"container ls\""), ("xyzzy", "there is no command")]
    {
        let error = match find(&words(given)) {
            Err(error) => error.message,
            Ok(_) => panic!("{given} is found"),
        };
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn no_name_stands_twice() {
    let mut names: Vec<&str> = ENTRIES.iter().flat_map(|it| it.words).copied().collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
