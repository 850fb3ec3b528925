//! Chains are built once and serve every design on every topology of a run: the servers of each know none of them yet. In groups of a
//! thousand members a commit takes a tenth of a second to make.

use std::{collections::BTreeMap, sync::Arc, thread::available_parallelism};

use futures::{StreamExt, TryStreamExt};
use openmls::prelude::KeyPackage;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::chain::{Chain, public_key_package};

/// What a chain is for, the members of its group, and its number among those.
type Key = (String, usize, usize);

/// All that were built.
#[derive(Default)]
pub(crate) struct Chains {
    /// Of everybody but the founder, for every group.
    packages: Mutex<Arc<Vec<KeyPackage>>>,
    built: Mutex<BTreeMap<Key, Arc<Chain>>>,
}

impl Chains {
    /// As many chains of this name and size, each of at least so many commits. Builds what is missing, on all processors.
    pub(crate) async fn get(
        &self,
        name: &str,
        members: usize,
        count: usize,
        commits: usize,
    ) -> anyhow::Result<Vec<Arc<Chain>>> {
        let keys: Vec<Key> = (0..count).map(|number| (name.to_owned(), members, number)).collect();
        let missing: Vec<Key> = {
            let built = self.built.lock();
            let lacks = |key: &&Key| built.get(*key).is_none_or(|chain| chain.commits.len() < commits);
            keys.iter().filter(lacks).cloned().collect()
        };
        if !missing.is_empty() {
            let packages = self.packages(members).await?;
            let build = |key: Key| {
                let packages = Arc::clone(&packages);
                async move {
                    let id = format!("{}-{}-{}", key.0, key.1, key.2);
                    let others = members.saturating_sub(1);
                    let building =
                        spawn_blocking(move || Chain::build(id.as_bytes(), &packages[..others], commits));
                    anyhow::Ok((key, Arc::new(building.await??)))
                }
            };
            let fresh: Vec<_> = futures::stream::iter(missing)
                .map(build)
                .buffer_unordered(processors())
                .try_collect()
                .await?;
            self.built.lock().extend(fresh);
        }
        let built = self.built.lock();
        Ok(keys.iter().filter_map(|key| built.get(key).cloned()).collect())
    }

    /// At least so many members' KeyPackages, without the founder's.
    async fn packages(&self, members: usize) -> anyhow::Result<Arc<Vec<KeyPackage>>> {
        let have = Arc::clone(&self.packages.lock());
        let missing = have.len() + 1..members;
        if missing.is_empty() {
            return Ok(have);
        }
        let make =
            |number| async move { anyhow::Ok(spawn_blocking(move || public_key_package(number)).await??) };
        let fresh: Vec<_> =
            futures::stream::iter(missing).map(make).buffered(processors()).try_collect().await?;
        let all = Arc::new(have.iter().cloned().chain(fresh).collect());
        *self.packages.lock() = Arc::clone(&all);
        Ok(all)
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_built_serves_again_unless_it_is_too_short() {
        let chains = Chains::default();
        let first = chains.get("load", 3, 2, 4).await.unwrap();
        assert_eq!(first.iter().map(|chain| chain.commits.len()).collect::<Vec<_>>(), [4, 4]);
        assert_ne!(first[0].id, first[1].id);
        let again = chains.get("load", 3, 1, 2).await.unwrap();
        assert!(again.len() == 1 && Arc::ptr_eq(&first[0], &again[0]));
        let longer = chains.get("load", 3, 2, 5).await.unwrap();
        assert!(longer.iter().all(|chain| chain.commits.len() == 5));
        let larger = chains.get("load", 5, 1, 2).await.unwrap();
        assert!(larger[0].commits[1].len() > first[0].commits[1].len());
    }
}
