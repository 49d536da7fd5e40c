//! Revalidation: a 304 makes a stored answer new again (RFC 9111 section 4.3).
//!
//! What a 304 changes is known in memory from then on. On disk it is written with the body anew, which is cheap only for bodies
//! that are small, and not for each 304: without it a restart merely revalidates once more, and counts the grace for a failing
//! origin from an earlier confirmation.

use super::*;

/// A small body is written anew for its confirmation alone once the one on disk is so much older.
const PERSIST_EVERY: Duration = Duration::from_secs(3600);

impl Cache {
    /// Asks the origin: for the object, or whether what is held still is it.
    pub(super) async fn ask_anew(
        &self,
        object: &Object,
        held: Option<&Cached>,
    ) -> (Result<Answer, OriginError>, Exchange) {
        let ask = held.map_or(Ask::Whole, |held| Ask::Unless {
            etag: held.meta.etag.clone(),
            last_modified: held.meta.last_modified_value.clone(),
        });
        let (answer, exchange) = self.exchange(object, ask).await;
        match (&answer, held) {
            // 4.3.4: it is about another version, and says nothing of this one.
            (Ok(Answer::NotModified(headers)), Some(held)) if !is_of(headers, &held.meta) => {
                self.exchange(object, Ask::Whole).await
            }
            _ => (answer, exchange),
        }
    }

    async fn exchange(&self, object: &Object, ask: Ask) -> (Result<Answer, OriginError>, Exchange) {
        let asked = clock::now();
        let answer = self.origin.get(&object.path, object.query.as_deref(), ask, object.size()).await;
        (answer, Exchange { asked, received: clock::now(), date: clock::date() })
    }

    /// What is held, with what the 304 says of it.
    pub(super) async fn renew(
        self: &Arc<Self>,
        object: &Object,
        held: &Cached,
        not_modified: &HeaderMap,
        exchange: Exchange,
    ) -> Cached {
        self.counters.revalidated.fetch_add(1, Ordering::Relaxed);
        let fields = held.meta.fields.updated(not_modified, exchange.date);
        let storage = freshness::judge(&view(&fields, not_modified), self.settings.revalidate, exchange);
        let terms = match storage {
            Storage::Store(terms) => terms,
            Storage::Pass => Terms::none(exchange.received),
        };
        let keeps = matches!(storage, Storage::Store(_)) && fields.fit();
        let mut meta = held.meta.renewed(terms, fields);
        if let Some(modified) = not_modified.get(header::LAST_MODIFIED).and_then(date::parse) {
            (meta.last_modified, meta.last_modified_value) = (Some(modified), Some(date::format(modified)));
        }
        meta.etag = meta.etag.or_else(|| not_modified.get(header::ETAG).cloned());
        let cached = Cached { meta: Arc::new(meta), ..held.clone() };
        if !keeps {
            // Right for those who wait for it, and for nobody after them.
            self.discard(object).await;
            return cached;
        }
        self.renewed.insert(object.clone(), Arc::clone(&cached.meta));
        self.memory.insert(object, cached.clone());
        self.persist(object, &cached).await;
        cached
    }

    /// Writes a small body anew where its fields have changed, or its last confirmation on disk is old. A failure is none: the
    /// entry stays as it was.
    async fn persist(self: &Arc<Self>, object: &Object, cached: &Cached) {
        let Body::Bytes(body) = &cached.body else { return };
        let (cache, asked) = (Arc::clone(self), object.clone());
        let on_disk = self.runtime.spawn_blocking(move || cache.disk.look(&asked, Trust::Epoch)).await;
        let Ok(Ok(Look::Found(found))) = on_disk else { return };
        let confirmed = cached.meta.terms.confirmed.since(found.meta.terms.confirmed);
        if confirmed < PERSIST_EVERY && lasting(&found.meta) == lasting(&cached.meta) {
            return;
        }
        let Some((draft, reservation)) = self.draft(cached.meta.length, &cached.meta.fields).await else {
            return;
        };
        let (body, file) = (body.clone(), Arc::clone(&draft.file));
        let written = self.runtime.spawn_blocking(move || file.write_all_at(&body, 0)).await;
        if matches!(written, Ok(Ok(()))) {
            // It is in memory as it is; `commit` inserts the same once more.
            let _ = self.commit(object, Arc::clone(&cached.meta), draft, reservation).await;
        }
    }
}

/// Whether a 304 is about this version: it names the same one, or none.
fn is_of(not_modified: &HeaderMap, meta: &Meta) -> bool {
    let opaque = |etag: &HeaderValue| {
        let bytes = etag.as_bytes();
        bytes.strip_prefix(b"W/").unwrap_or(bytes).to_vec()
    };
    if let (Some(named), Some(held)) = (not_modified.get(header::ETAG), &meta.etag) {
        return opaque(named) == opaque(held);
    }
    match (not_modified.get(header::LAST_MODIFIED).and_then(date::parse), meta.last_modified) {
        (Some(named), Some(held)) if meta.etag.is_none() => named == held,
        _ => true,
    }
}

/// The updated fields as one answer of now: what is not kept of a 304 still counts in it.
fn view(fields: &Fields, not_modified: &HeaderMap) -> HeaderMap {
    let mut view = fields.map().clone();
    for name in [header::AGE, header::SET_COOKIE] {
        for value in not_modified.get_all(&name) {
            view.append(name.clone(), value.clone());
        }
    }
    view
}

/// The fields that don't change with each answer.
fn lasting(meta: &Meta) -> HeaderMap {
    let mut map = meta.fields.map().clone();
    map.remove(header::DATE);
    map.remove(header::EXPIRES);
    map
}
