// What the coordinator tells, as it happens. Comes back by itself, from where it was, when the connection breaks.

import { byId, say } from "./dom.js";

const AGAIN_MS = 5000;

export function follow(url, take) {
  let source, timer, last, ended = false;

  function status(text, kind) {
    const node = byId("connection");
    say(node, text);
    node.className = kind;
  }

  function open() {
    close();
    source = new EventSource(last ? `${url}?after=${last}` : url);
    source.onopen = () => status("Live", "live");
    source.onerror = () => {
      status("Not connected; trying again", "lost");
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN_MS);
    };
    for (const [name, act] of Object.entries(take)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        act(JSON.parse(event.data));
      });
    }
    source.addEventListener("end", () => {
      ended = true;
      close();
      status("Ended", "");
    });
  }

  function close() {
    clearTimeout(timer);
    source?.close();
  }

  // Browsers allow six connections to a host: tabs that nobody looks at leave theirs to others.
  document.addEventListener("visibilitychange", () => {
    if (ended) return;
    if (document.hidden) close();
    else open();
  });
  open();
}

// Calls `draw` soon, and once for however much happens until then.
export function soon(draw, milliseconds = 100) {
  let timer;
  return () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      draw();
    }, milliseconds);
  };
}
