// Tabs as a browser treats them when nobody watches: hidden when another is in front, frozen and thawed, kept in the
// back/forward cache. Playwright's own pages always count as visible, so these are driven by the protocol alone.
import { sleep } from './lib.js';

export async function tabs(browser) {
  const cdp = await browser.newBrowserCDPSession();
  const { browserContextId } = await cdp.send('Target.createBrowserContext');
  const all = new Set();
  return {
    async open(url) {
      const { targetId } = await cdp.send('Target.createTarget', { url: 'about:blank', browserContextId });
      const { sessionId } = await cdp.send('Target.attachToTarget', { targetId, flatten: false });
      const one = new Tab(cdp, targetId, sessionId);
      all.add(one);
      await one.send('Page.enable');
      await one.send('Runtime.enable');
      await one.goto(url);
      return one;
    },
    front: one => cdp.send('Target.activateTarget', { targetId: one.targetId }),
    async close() {
      await cdp.send('Target.disposeBrowserContext', { browserContextId }).catch(() => {});
      const wrong = [...all].flatMap(one => one.wrong);
      if (wrong.length) throw new Error(wrong.join('; '));
    },
  };
}

class Tab {
  constructor(cdp, targetId, sessionId) {
    Object.assign(this, { cdp, targetId, sessionId, count: 0, waits: new Map(), wrong: [] });
    cdp.on('Target.receivedMessageFromTarget', e => { if (e.sessionId === sessionId) this.read(JSON.parse(e.message)); });
  }

  read({ id, method, params, result, error }) {
    if (method === 'Runtime.exceptionThrown') this.wrong.push(params.exceptionDetails.exception?.description || params.exceptionDetails.text);
    const wait = this.waits.get(id);
    this.waits.delete(id);
    if (wait) error ? wait.failed(new Error(error.message)) : wait.done(result);
  }

  send(method, params = {}) {
    const id = ++this.count;
    return new Promise((done, failed) => {
      this.waits.set(id, { done, failed });
      this.cdp.send('Target.sendMessageToTarget', { sessionId: this.sessionId, message: JSON.stringify({ id, method, params }) }).catch(failed);
    });
  }

  async evaluate(fn, arg) {
    const { result, exceptionDetails: e } = await this.send('Runtime.evaluate',
      { expression: `(${fn})(${JSON.stringify(arg)})`, returnByValue: true, awaitPromise: true });
    if (e) throw new Error(e.exception?.description || e.text);
    return result.value;
  }

  async waitForFunction(fn, arg, ms = 30000) {
    for (const end = Date.now() + ms; ; await sleep(40)) {
      const value = await this.evaluate(fn, arg).catch(e => { if (Date.now() > end) throw e; });
      if (value) return value;
      if (Date.now() > end) throw new Error(`never: ${fn} ${arg ?? ''}`);
    }
  }

  goto(url) { return this.send('Page.navigate', { url }); }
  reload() { return this.send('Page.reload'); }
  freeze(is) { return this.send('Page.setWebLifecycleState', { state: is ? 'frozen' : 'active' }); }
  offline(is) { return this.send('Network.emulateNetworkConditions', { offline: is, latency: 0, downloadThroughput: -1, uploadThroughput: -1 }); }
  close() { return this.cdp.send('Target.closeTarget', { targetId: this.targetId }); }
}
