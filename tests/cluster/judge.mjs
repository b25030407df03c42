// What the herds saw against what the publishers were told, a table of the faults, and a plot.
import { epochOf, seqOf } from './lib.mjs';

// Is the message with this id within one of the gaps that this client was told? epochs: in the order they came.
export function isTold(gaps, id, epochs) {
  const e = epochs.indexOf(epochOf(id)), seq = seqOf(id);
  return gaps.some(([, from, to]) => {
    const e1 = from ? epochs.indexOf(epochOf(from)) : -1, e2 = epochs.indexOf(epochOf(to));
    if (e1 === e2) return e === e1 && seq > seqOf(from) && seq <= seqOf(to);
    return (e > e1 && e < e2) || (e === e1 && seq > seqOf(from)) || (e === e2 && seq <= seqOf(to));
  });
}

// ids: of topic and number. Each number that was acknowledged was seen, or is in a gap that was told.
export function judge(summaries, ids, epochs) {
  const sum = (name) => summaries.reduce((n, s) => n + s[name], 0), lost = [];
  let told = 0, gaps = 0, falseGaps = 0; // false: evicted (all is kept here), or of an epoch, but not to a later one
  const most = new Map();
  for (const s of summaries) {
    const by = new Map();
    for (const g of s.gaps) {
      by.set(g[0], [...(by.get(g[0]) ?? []), g]);
      if (g[3] !== 'epoch' || (g[1] && epochs.indexOf(epochOf(g[1])) >= epochs.indexOf(epochOf(g[2])))) falseGaps++;
    }
    for (const [client, list] of by) most.set(client, list.length);
    gaps += s.gaps.length;
    for (const [client, topic, from, to] of s.missing) for (let n = from; n <= to; n++) {
      if (isTold(by.get(client) ?? [], ids.get(topic)[n], epochs)) told++;
      else lost.push({ client, topic, n, id: ids.get(topic)[n] });
    }
  }
  return { clients: sum('clients'), lost, told, doubled: sum('doubled'), across: sum('across'), back: sum('back'), sentBack: sum('sentBack'), gaps, falseGaps, gapsMost: Math.max(0, ...most.values()) };
}

const seconds = (ms) => (ms === undefined || Number.isNaN(ms) ? 'never' : `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`);

// all, half: until a probe published at the fault's beginning, or its end, had reached all readers, or half of them.
export function table(faults) {
  const rows = faults.map((f, i) => [i + 1, f.name, seconds(f.ended - f.began), seconds(f.first?.half), seconds(f.first?.all), f.hasEnd ? seconds(f.last?.half) : '', f.hasEnd ? seconds(f.last?.all) : '', f.reconnects, f.refusals]);
  return ['| | fault | it lasted | from its beginning: half of the readers | all | from its end: half | all | reconnects | publishes tried again |', '|---|---|---|---|---|---|---|---|---|',
    ...rows.map((r) => `| ${r.join(' | ')} |`)];
}

const escape = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;');

// Deliveries per second, the slowest delivery of each second, and the faults. ticks: [second, delivered, worst ms].
export function plot(title, ticks, faults) {
  const bySecond = new Map();
  for (const [s, delivered, worst] of ticks) {
    const o = bySecond.get(s) ?? { delivered: 0, worst: 0 };
    bySecond.set(s, { delivered: o.delivered + delivered, worst: Math.max(o.worst, worst) });
  }
  const all = [...bySecond.keys()].sort((a, b) => a - b), begin = all[0], count = all.at(-1) - begin + 1;
  const width = 1100, left = 70, right = 20, wide = width - left - right, x = (ms) => left + ((ms / 1000 - begin) / count) * wide;
  const high = 240, y0 = 60 + high, low = 130, y1 = y0 + 50 + low, most = Math.max(1, ...[...bySecond.values()].map((o) => o.delivered)) * 1.08;
  const y = (v) => y0 - (v / most) * high, yl = (ms) => y1 - (Math.log10(Math.min(Math.max(ms, 1), 99999)) / 5) * low;
  const rows = Math.ceil(faults.length / 2), height = y1 + 68 + rows * 17 + 10;
  const out = [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`, '<rect width="100%" height="100%" fill="white"/>',
    `<text x="${left}" y="24" font-size="16">${escape(title)}</text>`];
  faults.forEach((f, i) => {
    const a = x(f.began), b = Math.max(x(f.ended), a + 1.5);
    out.push(`<rect x="${a.toFixed(1)}" y="60" width="${(b - a).toFixed(1)}" height="${y1 - 60}" fill="#e8a33d" fill-opacity="0.35"/>`, `<text x="${((a + b) / 2).toFixed(1)}" y="${i % 2 ? 42 : 55}" text-anchor="middle" font-weight="bold" font-size="11">${i + 1}</text>`);
  });
  const step = 10 ** Math.floor(Math.log10(most)), ticksY = most / step < 2.5 ? step / 2 : most / step < 5 ? step : step * 2;
  for (let v = 0; v <= most; v += ticksY) out.push(`<line x1="${left}" x2="${width - right}" y1="${y(v).toFixed(1)}" y2="${y(v).toFixed(1)}" stroke="#ddd"/><text x="${left - 6}" y="${(y(v) + 4).toFixed(1)}" text-anchor="end">${v.toLocaleString('en')}</text>`);
  const line = (f) => all.map((s, i) => `${i ? 'L' : 'M'}${x(s * 1000 + 500).toFixed(1)},${f(bySecond.get(s)).toFixed(1)}`).join('');
  out.push(`<path d="${line((o) => y(o.delivered))}" fill="none" stroke="#1f5fa8" stroke-width="1.4"/>`, `<text x="${left}" y="${y0 + 34}" fill="#1f5fa8">above: messages delivered in each second</text>`,
    `<text x="${left + 300}" y="${y0 + 34}" fill="#a33">below: the slowest delivery of each second, from its first POST (short polls apart)</text>`);
  for (const [ms, name] of [[1, '1 ms'], [10, '10 ms'], [100, '100 ms'], [1000, '1 s'], [10000, '10 s'], [99999, '100 s']]) out.push(`<line x1="${left}" x2="${width - right}" y1="${yl(ms).toFixed(1)}" y2="${yl(ms).toFixed(1)}" stroke="#ddd"/><text x="${left - 6}" y="${(yl(ms) + 4).toFixed(1)}" text-anchor="end">${name}</text>`);
  out.push(`<path d="${line((o) => yl(o.worst))}" fill="none" stroke="#a33" stroke-width="1.2"/>`);
  const every = [5, 10, 20, 30, 60, 120].find((s) => count / s <= 16) ?? 300;
  for (let s = 0; s <= count; s += every) out.push(`<text x="${(left + (s / count) * wide).toFixed(1)}" y="${y1 + 16}" text-anchor="middle">${s} s</text>`);
  out.push(`<text x="${left}" y="${y1 + 40}" font-weight="bold">From the beginning of a fault until a message published after that had reached all readers:</text>`);
  faults.forEach((f, i) => {
    const column = Math.floor(i / rows);
    out.push(`<text x="${left + column * 510}" y="${y1 + 62 + (i % rows) * 17}">${i + 1}: ${escape(f.name)}: ${seconds(f.first?.all)}</text>`);
  });
  return `${[...out, '</svg>'].join('\n')}\n`;
}
