"use strict";
// Lets the search of the site work on files: browsers start no Worker from file:, so a hidden frame does its work. It has
// the part of Worker that the theme uses: postMessage, "message" events, and importScripts within.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      const answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const load = (where) => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src: where, onload: done, onerror: failed });
        inner.document.body.append(script);
      });
      const ready = new Promise((done) => {
        this.frame.contentDocument.open();
        this.frame.contentDocument.write("<!DOCTYPE html><body></body>");
        this.frame.contentDocument.close();
        inner.importScripts = (...urls) => urls.reduce((before, where) => before.then(() => load(where)), Promise.resolve());
        this.receivers = [];
        inner.addEventListener = (kind, receive) => { if (kind === "message") this.receivers.push(receive); };
        inner.postMessage = (data) => answer(data);
        load(new URL(url, location.href).href).then(done);
      });
      this.ready = ready;
    }
    postMessage(data) {
      this.ready = this.ready.then(() => Promise.all(this.receivers.map((receive) => receive({ data }))));
    }
    terminate() { this.frame.remove(); }
  };
}
