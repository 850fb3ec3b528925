//! A real member of a real MLS group.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::SubmitRequest,
    log::v1::{Entry, WelcomeRecipient, content::Content},
};
use openmls::prelude::{
    tls_codec::{Deserialize, Serialize},
    *,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub struct Member {
    pub name: &'static str,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    pub group: Option<MlsGroup>,
    policy: WireFormatPolicy,
}

impl Member {
    /// A client whose handshakes are PublicMessages.
    pub fn new(name: &'static str) -> Self {
        Self::with_policy(name, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
    }

    /// A client whose handshakes are PrivateMessages.
    pub fn private(name: &'static str) -> Self {
        Self::with_policy(name, MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
    }

    fn with_policy(name: &'static str, policy: WireFormatPolicy) -> Self {
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: signer.to_public_vec().into(),
        };
        Self { name, provider: OpenMlsRustCrypto::default(), signer, credential, group: None, policy }
    }

    pub fn group(&self) -> &MlsGroup {
        self.group.as_ref().expect("is in a group")
    }

    pub fn epoch(&self) -> u64 {
        self.group().epoch().as_u64()
    }

    pub fn authenticator(&self) -> Vec<u8> {
        self.group().epoch_authenticator().as_slice().to_vec()
    }

    /// Begins a group; returns its GroupInfo.
    pub fn create(&mut self, id: &[u8]) -> Bytes {
        let group = MlsGroup::builder()
            .with_group_id(GroupId::from_slice(id))
            .ciphersuite(SUITE)
            .with_wire_format_policy(self.policy)
            .use_ratchet_tree_extension(true)
            .build(&self.provider, &self.signer, self.credential.clone())
            .unwrap();
        self.group = Some(group);
        self.group_info(true)
    }

    /// The GroupInfo of the current state.
    pub fn group_info(&self, with_tree: bool) -> Bytes {
        let info = self.group().export_group_info(self.provider.crypto(), &self.signer, with_tree).unwrap();
        info.to_bytes().unwrap().into()
    }

    pub fn key_package(&self, last_resort: bool) -> Bytes {
        let capabilities = Capabilities::new(None, None, Some(&[ExtensionType::LastResort]), None, None);
        let mut builder = KeyPackage::builder().leaf_node_capabilities(capabilities);
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder.build(SUITE, &self.provider, &self.signer, self.credential.clone()).unwrap();
        MlsMessageOut::from(bundle.key_package().clone()).to_bytes().unwrap().into()
    }

    /// A commit that adds these KeyPackages (client, MLSMessage) and removes these leaves, with everything that belongs to it.
    pub fn commit(&mut self, add: &[(&str, Bytes)], remove: &[u32]) -> SubmitRequest {
        let mut recipients = Vec::new();
        let mut added = Vec::new();
        for (client, bytes) in add {
            let MlsMessageBodyIn::KeyPackage(package) =
                MlsMessageIn::tls_deserialize_exact(bytes).unwrap().extract()
            else {
                panic!("expected a KeyPackage")
            };
            let package = package.validate(self.provider.crypto(), ProtocolVersion::Mls10).unwrap();
            let reference = package.hash_ref(self.provider.crypto()).unwrap();
            recipients.push(WelcomeRecipient {
                client_id: Bytes::copy_from_slice(client.as_bytes()),
                key_package_ref: Bytes::copy_from_slice(reference.as_slice()),
            });
            added.push(package);
        }
        let group = self.group.as_mut().unwrap();
        let bundle = group
            .commit_builder()
            .propose_adds(added)
            .propose_removals(remove.iter().map(|leaf| LeafNodeIndex::new(*leaf)))
            .force_self_update(true)
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .use_ratchet_tree_extension(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        request(bundle, recipients)
    }

    pub fn update(&mut self) -> SubmitRequest {
        self.commit(&[], &[])
    }

    pub fn propose_update(&mut self) -> SubmitRequest {
        let group = self.group.as_mut().unwrap();
        let (message, _) =
            group.propose_self_update(&self.provider, &self.signer, LeafNodeParameters::default()).unwrap();
        SubmitRequest { message: message.to_bytes().unwrap().into(), ..SubmitRequest::default() }
    }

    pub fn say(&mut self, text: &str) -> SubmitRequest {
        let group = self.group.as_mut().unwrap();
        let message = group.create_message(&self.provider, &self.signer, text.as_bytes()).unwrap();
        SubmitRequest { message: message.to_bytes().unwrap().into(), ..SubmitRequest::default() }
    }

    /// The own commit was accepted.
    pub fn merge(&mut self) {
        self.group.as_mut().unwrap().merge_pending_commit(&self.provider).unwrap();
    }

    /// The own commit was not accepted.
    pub fn abandon(&mut self) {
        self.group.as_mut().unwrap().clear_pending_commit(self.provider.storage()).unwrap();
    }

    pub fn join(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) =
            MlsMessageIn::tls_deserialize_exact(welcome).unwrap().extract()
        else {
            panic!("expected a Welcome")
        };
        let staged =
            StagedWelcome::new_from_welcome(&self.provider, &self.join_config(), welcome, None).unwrap();
        self.group = Some(staged.into_group(&self.provider).unwrap());
    }

    /// Joins by an external commit to this GroupInfo.
    pub fn join_external(&mut self, group_info: &[u8]) -> SubmitRequest {
        let MlsMessageBodyIn::GroupInfo(info) =
            MlsMessageIn::tls_deserialize_exact(group_info).unwrap().extract()
        else {
            panic!("expected a GroupInfo")
        };
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_config(self.join_config())
            .build_group(&self.provider, info, self.credential.clone())
            .unwrap()
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .use_ratchet_tree_extension(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .finalize(&self.provider)
            .unwrap();
        self.group = Some(group);
        request(bundle, Vec::new())
    }

    fn join_config(&self) -> MlsGroupJoinConfig {
        MlsGroupJoinConfig::builder().wire_format_policy(self.policy).use_ratchet_tree_extension(true).build()
    }

    /// Takes in an entry of somebody else. Returns the text of an application message.
    pub fn process(&mut self, entry: &Entry) -> Option<String> {
        let bytes = match entry.content.as_ref()?.content.as_ref()? {
            Content::Proposal(p) => &p.message,
            Content::Commit(c) => &c.message,
            Content::Application(a) => &a.message,
            _ => return None,
        };
        self.process_message(bytes)
    }

    /// Takes in a message of somebody else. What follows it (a dmls_epoch) is not looked at.
    pub fn process_message(&mut self, bytes: &[u8]) -> Option<String> {
        let mut bytes = bytes;
        let message = MlsMessageIn::tls_deserialize(&mut bytes).unwrap().try_into_protocol_message().unwrap();
        let group = self.group.as_mut().unwrap();
        match group.process_message(&self.provider, message).unwrap().into_content() {
            ProcessedMessageContent::ApplicationMessage(m) => {
                Some(String::from_utf8(m.into_bytes()).unwrap())
            }
            ProcessedMessageContent::ProposalMessage(proposal) => {
                group.store_pending_proposal(self.provider.storage(), *proposal).unwrap();
                None
            }
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.merge_staged_commit(&self.provider, *commit).unwrap();
                None
            }
            _ => None,
        }
    }

    /// The own external commit was accepted.
    pub fn merge_if_pending(&mut self) {
        if self.group().pending_commit().is_some() {
            self.merge();
        }
    }
}

fn request(bundle: CommitMessageBundle, recipients: Vec<WelcomeRecipient>) -> SubmitRequest {
    let (commit, welcome, info) = bundle.into_messages();
    let bytes =
        |message: Option<MlsMessageOut>| message.map(|m| m.to_bytes().unwrap().into()).unwrap_or_default();
    SubmitRequest {
        message: bytes(Some(commit)),
        welcome: bytes(welcome),
        group_info: bytes(info),
        recipients,
        parent_state_id: Bytes::new(),
        members_only: false,
    }
}

/// The same commit with one byte of its signature or its path changed: it decodes, but nobody can process it.
pub fn tampered(commit: &Bytes) -> Bytes {
    let MlsMessageBodyIn::PublicMessage(_) = MlsMessageIn::tls_deserialize_exact(commit).unwrap().extract()
    else {
        panic!("expected a PublicMessage")
    };
    // The last bytes are the tags, which nobody but members can check; the middle is signed content.
    for at in (commit.len() / 3)..commit.len() {
        let mut bytes = commit.to_vec();
        bytes[at] ^= 1;
        let Ok(message) = MlsMessageIn::tls_deserialize_exact(&bytes) else { continue };
        if message.tls_serialize_detached().is_ok_and(|again| again == bytes) {
            return bytes.into();
        }
    }
    panic!("every byte is structure")
}
