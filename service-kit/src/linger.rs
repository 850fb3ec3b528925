//! Closing a connection so that the other side reads the last words. A socket that is closed while bytes for it are still on their way
//! is reset, and a reset can overtake what was sent before it: an HTTP/2 client would learn only that the connection broke, and not from
//! the last GOAWAY which of its requests nobody has looked at. So whoever has said that it sends nothing more goes on reading, and
//! throws away what comes, until the other side closes as well.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy, sink},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};

use crate::limits::LINGER_TIMEOUT;

/// A connection that was accepted. If it is dropped after it was shut down, it lingers.
pub(crate) struct Lingering {
    /// Absent once it lingers.
    stream: Option<TcpStream>,
    is_shut: bool,
}

impl Lingering {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream: Some(stream), is_shut: false }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // Without a runtime the process is about to end.
        if let (true, Some(mut stream), Ok(runtime)) =
            (self.is_shut, self.stream.take(), Handle::try_current())
        {
            runtime.spawn(async move {
                let _ = timeout(LINGER_TIMEOUT, copy(&mut stream, &mut sink())).await;
            });
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_shutdown(cx))?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// The other side goes on sending after the last words, and reads them only then.
    #[tokio::test]
    async fn last_words_are_heard_by_somebody_who_is_still_speaking() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut server = Lingering::new(accepted);
        client.write_all(b"never read").await.unwrap();
        server.stream.as_ref().unwrap().readable().await.unwrap();
        server.write_all(b"last words").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        for _ in 0..100 {
            client.write_all(&[0; 1024]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
    }
}
