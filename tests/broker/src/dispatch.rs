//! From the bytes of a request to the bytes of its answer: API versions, decoding, encoding.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer};

use crate::api::{cluster, configs, fetch, groups, list_offsets, metadata, offsets, produce, topics, txn};
use crate::faults::Failure;
use crate::server::Server;
use crate::state::{Now, State};

/// The APIs with the versions that this broker speaks. `tests/protocol.rs` has a request for each.
pub(crate) const VERSIONS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 10),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 1),
];

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Server,
    /// Where the connection came in: the only address that its client is told.
    pub(crate) port: u16,
    pub(crate) version: i16,
    pub(crate) client_id: StrBytes,
    pub(crate) now: Now,
    /// The error that a test wants this request to be answered with.
    pub(crate) injected: Option<ResponseError>,
}

/// What goes back on the connection.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A framed response.
    Send(Bytes),
    /// Nothing: the producer wants no acknowledgement.
    Nothing,
    /// The end of the connection.
    Cut,
}

/// Why a request has no answer; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the request is too short for a header")]
    Short,
    #[error("the request header cannot be read: {0}")]
    Header(String),
    #[error("{api:?} version {version} is not spoken here")]
    Version { api: ApiKey, version: i16 },
    #[error("{api:?} version {version} cannot be read: {reason}")]
    Decode { api: ApiKey, version: i16, reason: String },
    #[error("the answer to {api:?} version {version} cannot be written: {reason}")]
    Encode { api: ApiKey, version: i16, reason: String },
}

/// Carries out one request.
///
/// # Errors
/// When it cannot be read or its answer cannot be written.
pub(crate) async fn answer(server: &Server, port: u16, mut request: Bytes) -> Result<Answer, Error> {
    // The codec would panic on less than key, version, correlation id and length of the client id.
    if request.len() < 10 {
        return Err(Error::Short);
    }
    let header = decode_request_header_from_buffer(&mut request).map_err(|error| Error::Header(format!("{error:#}")))?;
    let api = ApiKey::try_from(header.request_api_key).map_err(|()| Error::Header("unknown API".to_owned()))?;
    let failure = server.faults().take(api);
    let call = Call {
        server,
        port,
        version: header.request_api_version,
        client_id: header.client_id.clone().unwrap_or_default(),
        now: Now::read(),
        injected: match failure {
            Some(Failure::Refused(error)) => Some(error),
            Some(Failure::Unanswered) | None => None,
        },
    };
    let exchange = Exchange { call, api, header, body: request };
    if !exchange.is_spoken() {
        return exchange.unspoken();
    }
    let answer = exchange.carry_out().await?;
    Ok(if failure == Some(Failure::Unanswered) { Answer::Cut } else { answer })
}

/// One request on its way to its answer.
struct Exchange<'a> {
    call: Call<'a>,
    api: ApiKey,
    header: RequestHeader,
    body: Bytes,
}

impl Exchange<'_> {
    fn is_spoken(&self) -> bool {
        let version = self.call.version;
        VERSIONS.iter().any(|(api, min, max)| *api == self.api && (*min..=*max).contains(&version))
    }

    /// A client that asks for a newer version of ApiVersions than is known learns the versions in version 0.
    fn unspoken(mut self) -> Result<Answer, Error> {
        if self.api != ApiKey::ApiVersions {
            return Err(Error::Version { api: self.api, version: self.call.version });
        }
        self.call.version = 0;
        let versions = metadata::versions(&self.call);
        self.send(&versions.with_error_code(ResponseError::UnsupportedVersion.code()))
    }

    async fn carry_out(self) -> Result<Answer, Error> {
        match self.api {
            ApiKey::Produce => {
                let request = self.decode()?;
                let (response, acknowledged) = produce::produce(&self.call, request);
                if acknowledged { self.send(&response) } else { Ok(Answer::Nothing) }
            }
            ApiKey::Fetch => self.send(&fetch::fetch(&self.call, &self.decode()?).await),
            ApiKey::JoinGroup => self.send(&groups::join(&self.call, self.decode()?).await),
            ApiKey::SyncGroup => self.send(&groups::sync(&self.call, self.decode()?).await),
            ApiKey::ApiVersions => self.send(&metadata::versions(&self.call)),
            ApiKey::Metadata => self.locked(metadata::metadata),
            ApiKey::DescribeCluster => self.locked(cluster::describe),
            ApiKey::FindCoordinator => self.locked(cluster::find_coordinator),
            ApiKey::ListOffsets => self.locked(list_offsets::list),
            ApiKey::OffsetForLeaderEpoch => self.locked(list_offsets::for_leader_epoch),
            ApiKey::CreateTopics => self.locked(topics::create),
            ApiKey::DeleteTopics => self.locked(topics::delete),
            ApiKey::CreatePartitions => self.locked(topics::create_partitions),
            ApiKey::DeleteRecords => self.locked(topics::delete_records),
            ApiKey::DescribeConfigs => self.locked(configs::describe),
            ApiKey::AlterConfigs => self.locked(configs::alter),
            ApiKey::IncrementalAlterConfigs => self.locked(configs::alter_incrementally),
            ApiKey::OffsetCommit => self.locked(offsets::commit),
            ApiKey::OffsetFetch => self.locked(offsets::fetch),
            ApiKey::OffsetDelete => self.locked(offsets::delete),
            ApiKey::Heartbeat => self.locked(groups::heartbeat),
            ApiKey::LeaveGroup => self.locked(groups::leave),
            ApiKey::ListGroups => self.locked(groups::list),
            ApiKey::DescribeGroups => self.locked(groups::describe),
            ApiKey::DeleteGroups => self.locked(groups::delete),
            ApiKey::InitProducerId => self.locked(txn::initialise),
            ApiKey::AddPartitionsToTxn => self.locked(txn::add_partitions),
            ApiKey::AddOffsetsToTxn => self.locked(txn::add_offsets),
            ApiKey::TxnOffsetCommit => self.locked(txn::commit_offsets),
            ApiKey::EndTxn => self.locked(txn::end),
            api => Err(Error::Version { api, version: self.call.version }),
        }
    }

    /// Decodes, works under the lock, encodes.
    fn locked<Q: Decodable, A: Encodable + HeaderVersion>(
        self,
        handle: impl FnOnce(&Call<'_>, &mut State, Q) -> A,
    ) -> Result<Answer, Error> {
        let request = self.decode()?;
        let response = self.call.server.with(|state| handle(&self.call, state, request));
        self.send(&response)
    }

    fn decode<Q: Decodable>(&self) -> Result<Q, Error> {
        let (api, version) = (self.api, self.call.version);
        Q::decode(&mut self.body.clone(), version).map_err(|error| Error::Decode { api, version, reason: format!("{error:#}") })
    }

    fn send<A: Encodable + HeaderVersion>(&self, response: &A) -> Result<Answer, Error> {
        let (api, version) = (self.api, self.call.version);
        let header = ResponseHeader::default().with_correlation_id(self.header.correlation_id);
        let mut framed = BytesMut::new();
        framed.put_u32(0);
        header
            .encode(&mut framed, A::header_version(version))
            .and_then(|()| response.encode(&mut framed, version))
            .map_err(|error| Error::Encode { api, version, reason: format!("{error:#}") })?;
        let length =
            u32::try_from(framed.len() - 4).map_err(|_| Error::Encode { api, version, reason: "it is longer than 4 GiB".to_owned() })?;
        if let Some(slot) = framed.first_chunk_mut::<4>() {
            *slot = length.to_be_bytes();
        }
        Ok(Answer::Send(framed.freeze()))
    }
}
