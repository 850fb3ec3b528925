//! What is deleted is gone.

use std::{fs, path::Path, sync::atomic::Ordering::SeqCst};

use crate::story::story;

/// What a client's file holds of its groups' states: bodies of records, keys (with their PPRF) first.
fn pieces(folder: &Path, name: &str) -> [Vec<Vec<u8>>; 2] {
    let copy = folder.join("copy");
    fs::copy(folder.join(name), &copy).unwrap();
    let db = rusqlite::Connection::open(&copy).unwrap();
    [2, 3].map(|kind| {
        let mut query = db.prepare("SELECT body FROM demls_records WHERE kind = ?1").unwrap();
        query.query_map([kind], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn what_is_deleted_at_stable_is_really_gone_from_the_file() {
    let story = story(&["ann", "bob", "cy"]).await;
    let ([ann, bob, cy], group) = (&story.members[..], &story.group) else { unreachable!() };
    story.net.split(&[0, 0, 1], Some(0));
    ann.update(group).await.unwrap();
    bob.sync(group).await.unwrap();
    cy.update(group).await.unwrap();
    // A pending commit whose outcome stays unknown is a state, too.
    cy.transport.lose_answers.store(1, SeqCst);
    cy.update(group).await.unwrap_err();
    assert!(cy.group(group).unwrap().retained_states >= 3);
    let [keys, chunks] = pieces(story.folder.path(), "cy");
    let file = |name| fs::read(story.folder.path().join(name)).unwrap();
    assert!(keys.iter().all(|keys| contains(&file("cy"), &keys[..64])));
    story.heal().await;
    story.check();
    let [_, kept] = pieces(story.folder.path(), "cy");
    let file = file("cy");
    // No epoch name, handle, init secret or punctured path of any of those states.
    assert!(keys.iter().flat_map(|keys| keys.chunks_exact(32).skip(1)).all(|part| !contains(&file, part)));
    // Nor anything of them that the state which is kept does not have in common.
    let gone: Vec<_> = chunks.iter().filter(|chunk| !kept.iter().any(|kept| contains(kept, chunk))).collect();
    assert!(gone.len() > 5);
    assert!(gone.iter().all(|chunk| !contains(&file, chunk)), "a deleted piece is in the file");
}
