// Types of rtpush.js. Public domain (UNLICENSE). As a script's global, by /// <reference path="rtpush.d.ts"/>; by
// import rtpush from "./rtpush.js"; and after import "/rtpush.js" as window.rtpush.
export = rtpush;
export as namespace rtpush;

declare global {
  interface Window { rtpush: typeof rtpush }
}

declare namespace rtpush {
  type Transport = "websocket" | "sse" | "longpoll" | "shortpoll";
  type State = "idle" | "connecting" | "open" | "waiting" | "paused" | "closed";
  type Token = string | { token: string; /** ms since 1970 */ expires?: number };

  interface Options {
    /** In the order in which they are tried. */
    transports?: Transport[];
    /** A cursor to go on from, such as a former page's live.cursor. */
    since?: string;
    /** First message of a WebSocket, Authorization: Bearer of requests. A function is asked again before `expires` and after a refusal. */
    token?: string | (() => Token | Promise<Token>);
    credentials?: RequestCredentials;
    /** Whether tabs share one connection; a name: only those of the same name. By default yes, unless there is a token. */
    share?: boolean | string;
    /** Base and cap of the backoff, and after how long a connection counts as stable; ms. */
    backoff?: number;
    backoffMax?: number;
    stable?: number;
    /** A transport that is silent so long does not work here; ms. */
    firstByte?: number;
    /** Of a request, beside what a long poll waits on purpose; ms. */
    timeout?: number;
    /** How long a long poll is held; seconds. */
    wait?: number;
    /** Between two short polls; ms. */
    interval?: number;
    /** How long a transport that failed twice is passed over; ms. */
    remember?: number;
    /** How long a publish is tried; below the two minutes for which the server knows its key; ms. */
    publishWithin?: number;
    WebSocket?: unknown;
    fetch?: typeof fetch;
    locks?: unknown;
    BroadcastChannel?: unknown;
  }

  interface Message<T = any> {
    id: string;
    topic: string;
    event?: string;
    /** Text, a JSON value, or Uint8Array. */
    data: T;
    /** It is a late subscription's past. */
    replay?: true;
  }

  interface Gap { from: string; to: string; reason: "evicted" | "epoch"; topic?: string }
  /** here: null above the number of members that the server lists. */
  interface Presence { here: string[] | null; count: number }
  interface Failure extends Error { code?: string | number; status?: number; topic?: string; /** The client has closed. */ isFatal?: boolean }
  interface Unsubscribe { (): void; /** From here on nothing is missed. */ ready: Promise<void> }

  interface Live {
    readonly state: State;
    readonly transport: Transport | "";
    readonly cursor: string;
    subscribe<T = any>(topic: string, fn: (m: Message<T>) => void, options?: { since?: string | number }): Unsubscribe;
    presence(topic: string, fn: (p: Presence) => void): Unsubscribe;
    /** Gives the id. Sent as often as it takes, with one key. */
    publish(topic: string, data?: unknown, options?: { event?: string; ephemeral?: boolean; key?: string }): Promise<string>;
    on(name: "gap", fn: (gap: Gap) => void): () => void;
    on(name: "state", fn: (state: State, detail: { transport: string; delay?: number }) => void): () => void;
    on(name: "error", fn: (error: Failure) => void): () => void;
    close(): void;
  }
}
declare function rtpush(url?: string, options?: rtpush.Options): rtpush.Live;
declare namespace rtpush { export { rtpush } }
