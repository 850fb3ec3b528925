//! Members of DeMLS groups for tests.
#![allow(dead_code, unreachable_pub)]

pub mod independent;
#[cfg(target_os = "linux")]
pub mod memory;
pub mod recorder;

use group_log::StateId;
use mls_client::demls::{DmlsGroup, DmlsMessage, EpochState, Merged, OwnCommit, Processed};
use openmls::prelude::{
    tls_codec::{Deserialize as _, Serialize as _},
    *,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};

/// Ciphersuite 0x0001.
pub const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub const GROUP_ID: &[u8] = b"a group of the tests";

/// One client.
pub struct Client {
    pub crypto: RustCrypto,
    pub signer: SignatureKeyPair,
    pub credential: CredentialWithKey,
    pub suite: Ciphersuite,
}

impl Client {
    pub fn new(name: &str) -> Self {
        Self::with_suite(name, SUITE)
    }

    pub fn with_suite(name: &str, suite: Ciphersuite) -> Self {
        let signer = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: signer.to_public_vec().into(),
        };
        Client { crypto: RustCrypto::default(), signer, credential, suite }
    }

    pub fn key_package(&self) -> KeyPackageBundle {
        let provider = OpenMlsRustCrypto::default();
        KeyPackage::builder().build(self.suite, &provider, &self.signer, self.credential.clone()).unwrap()
    }

    pub fn create(&self, policy: WireFormatPolicy) -> DmlsGroup {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(self.suite)
            .wire_format_policy(policy)
            .use_ratchet_tree_extension(true)
            .build();
        let group_id = GroupId::from_slice(GROUP_ID);
        DmlsGroup::create(&self.crypto, &self.signer, &config, group_id, self.credential.clone()).unwrap()
    }

    pub fn join_config(&self, policy: WireFormatPolicy) -> MlsGroupJoinConfig {
        MlsGroupJoinConfig::builder().wire_format_policy(policy).use_ratchet_tree_extension(true).build()
    }

    pub fn join(
        &self,
        policy: WireFormatPolicy,
        welcome: &MlsMessageOut,
        bundle: &KeyPackageBundle,
    ) -> DmlsGroup {
        let welcome = received_welcome(welcome);
        DmlsGroup::join(&self.crypto, &self.join_config(policy), welcome, bundle, None).unwrap()
    }

    /// A commit that adds `key_packages`, or updates only if there are none.
    pub fn commit(&self, group: &mut DmlsGroup, key_packages: &[KeyPackage]) -> OwnCommit {
        group
            .commit(&self.crypto, &self.signer, |builder| builder.propose_adds(key_packages.to_vec()))
            .unwrap()
    }

    /// Processes and merges a commit of somebody else.
    pub fn follow(&self, mut group: DmlsGroup, commit: &[u8]) -> Merged {
        match group.process(&self.crypto, DmlsMessage::decode(commit).unwrap()).unwrap() {
            Processed::Commit(staged) => group.merge(&self.crypto, staged).unwrap(),
            _ => panic!("expected a commit"),
        }
    }

    /// Settles an own commit: the state before it, retained, and the state after it.
    pub fn settle(&self, group: DmlsGroup, own: OwnCommit) -> Merged {
        let mut parent = group.into_state().unwrap();
        let mut next = own.next;
        parent.settle(&self.crypto, next.state_mut().unwrap()).unwrap();
        Merged { parent, next }
    }

    /// The content of an application message.
    pub fn read(&self, group: &mut DmlsGroup, message: &[u8]) -> Vec<u8> {
        match group.process(&self.crypto, DmlsMessage::decode(message).unwrap()).unwrap() {
            Processed::Application { content, .. } => content,
            _ => panic!("expected an application message"),
        }
    }
}

/// What arrives when a message is sent.
fn received(message: &MlsMessageOut) -> MlsMessageBodyIn {
    let bytes = message.tls_serialize_detached().unwrap();
    MlsMessageIn::tls_deserialize_exact(bytes).unwrap().extract()
}

pub fn received_welcome(message: &MlsMessageOut) -> Welcome {
    match received(message) {
        MlsMessageBodyIn::Welcome(welcome) => welcome,
        _ => panic!("expected a Welcome"),
    }
}

pub fn received_group_info(message: &MlsMessageOut) -> group_info::VerifiableGroupInfo {
    match received(message) {
        MlsMessageBodyIn::GroupInfo(info) => info,
        _ => panic!("expected a GroupInfo"),
    }
}

/// A group whose members are `clients`, all in one state; the first client created it.
pub fn group_of(policy: WireFormatPolicy, clients: &[&Client]) -> Vec<DmlsGroup> {
    let creator = clients[0];
    let mut group = creator.create(policy);
    if clients.len() == 1 {
        return vec![group];
    }
    let bundles: Vec<_> = clients[1..].iter().map(|client| client.key_package()).collect();
    let key_packages: Vec<_> = bundles.iter().map(|bundle| bundle.key_package().clone()).collect();
    let own = creator.commit(&mut group, &key_packages);
    let welcome = own.welcome.clone().unwrap();
    let mut groups = vec![creator.settle(group, own).next];
    for (client, bundle) in clients[1..].iter().zip(&bundles) {
        groups.push(client.join(policy, &welcome, bundle));
    }
    groups
}

/// Whether all groups are in one and the same state.
pub fn agree(groups: &[&DmlsGroup]) -> bool {
    let name = |group: &DmlsGroup| {
        (group.epoch().unwrap().clone(), group.mls().epoch_authenticator().as_slice().to_vec())
    };
    groups.windows(2).all(|pair| name(pair[0]) == name(pair[1]))
}

pub fn state_id(number: u8) -> StateId {
    StateId([number; 32])
}

/// Opens a copy of a state.
pub fn reopened(state: &EpochState) -> DmlsGroup {
    DmlsGroup::open(state.clone()).unwrap()
}

/// The policies that matter: handshakes in the clear, and everything encrypted.
pub const POLICIES: [WireFormatPolicy; 2] =
    [PURE_PLAINTEXT_WIRE_FORMAT_POLICY, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY];
