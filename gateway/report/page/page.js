/* SPDX-License-Identifier: MIT */
(function () {
'use strict';

const RENDER_MS = 500; /* between two renderings */
const LOOK_MS = 1000; /* between two looks at the statistics while something happens, at least */
const LOOK_SHARE = 20; /* ... and this many times what the last one took: large ones are asked for less often */
const IDLE_MS = 5000; /* ... and while nothing happens */
const RETRY_MAX_MS = 15000;
const ANSWER_MS = 10000;
const ANNOUNCE_MS = 10000;
const ROWS_STEP = 200, ROWS_MAX = 1000; /* in a list */
const LINES_MAX = 500;
const VARIANTS_MAX = 50;
const NEW_SECONDS = 600;
const NAME_MAX = 64; /* characters of a name in a list */

/* docs/log-format.md, in a few words and in a sentence */
const REASONS = {
	__proto__: null,
	'name-not-allowed': ['name not allowed', 'No rule of this network allows this name.'],
	'denied-by-rule': ['denied by a rule', 'A deny rule matches. Deny rules win over allow rules.'],
	'port-not-allowed': ['port not allowed', 'The name or address is allowed, but not this port or protocol of it.'],
	'address-not-allowed': ['address not allowed', 'No rule allows this address, and no DNS answer ever showed it: the app has it from elsewhere.'],
	'lease-expired': ['address too old', 'The name is allowed, but the app uses an address of an old answer. It should ask again.'],
	'protocol-not-allowed': ['protocol not allowed', 'Only TCP and UDP can pass.'],
	'special-address': ['special address', 'Private, link-local, metadata or other special space that no rule names.'],
	'isolated': ['another network', 'It is for another network, or the gateway itself.'],
	'malformed': ['malformed', 'The packet or question could not be parsed.'],
	'rebinding': ['DNS rebinding', 'The answer pointed an allowed name into special space.'],
	'local-name': ['local name', 'A name with a single label, or one that never leaves the gateway.'],
	'unsupported': ['unsupported question', 'A type of question that the gateway does not serve.'],
	'repeated': ['repeated', 'Refused before, or faster than lines are written.'],
	'spoofed-source': ['forged source', 'Its source address is not of this network.'],
	'multicast': ['multicast', 'Multicast and broadcast do not pass.'],
	'queue-full': ['too many at once', 'More came at once than could be looked at.'],
	'invalid-state': ['part of no flow', 'It belongs to no flow. A few now and then are normal.'],
	'sni-mismatch': ['not allowed inside', 'The flow itself asked for this name, at an address of another one.'],
	'name-too-long': ['name too long', 'A wildcard allows it, but not for so many octets or labels.'],
	'too-many-names': ['too many new names', 'More new names below a wildcard in a minute than the network may ask for.'],
	'too-many-flows': ['too many flows', 'The network has its share of flows, and this app has more than the others.'],
	'no-name': ['no name inside', 'The flow itself named no host.'],
};

/* sign, word, style */
const OUTCOMES = {
	__proto__: null,
	denied: ['✗', 'denied', 'no'], audit: ['△', 'audit', 'maybe'], allowed: ['✓', 'allowed', 'yes'], ended: ['–', 'ended', 'quiet'],
	inbound: ['✓', 'inbound', 'yes'], 'log-lost': ['!', 'lost', 'maybe'],
};

const model = {
	networks: [],
	groups: new Map(), /* what the statistics know of one app and destination */
	lines: [], /* newest first */
	lineNumber: 0,
	newcomers: 0, /* groups that no screen reader was told of yet */
	newcomer: null,
	clock: 0, /* seconds that the gateway's clock is ahead of ours */
};
const link = { source: null, streaming: false, refused: false, reached: 0, failures: 0, asking: false, news: false, timer: null, due: 0, looked: 0, share: 0 };
const shown = { paused: false, waiting: 0, words: [], network: null, view: null, sort: null, up: false };
const panel = { key: null, opener: null, update: null, asked: 0 };
const drawn = { timer: null, last: -RENDER_MS, announced: -ANNOUNCE_MS };

const $ = (selector) => document.querySelector(selector);

/* --- text --- */

const count = new Intl.NumberFormat('en').format;
const many = (number, one) => `${count(number)} ${one}${number === 1 ? '' : 's'}`;
const now = () => Date.now() / 1000 + model.clock;
const networkText = (name) => name || 'network not known';
const reasonText = (reason, index = 0) => (REASONS[reason] || [])[index] || reason || '';
const outcomeOf = (event) => OUTCOMES[event] || ['·', String(event), 'quiet'];
const portText = (row) => (row.proto === 'dns' ? 'DNS' : row.port ? `${row.port}/${row.proto}` : row.proto || '');
const unique = (list) => [...new Set(list)].filter(Boolean);

function bytes(number) {
	let unit = 0;
	for (; number >= 999.5 && unit < 5; unit++)
		number /= 1000;
	return `${unit && number < 9.95 ? number.toFixed(1) : Math.round(number)} ${['B', 'kB', 'MB', 'GB', 'TB', 'PB'][unit]}`;
}

function age(seconds) {
	const since = Math.max(0, Math.floor(now() - seconds));
	const [size, unit] = since < 60 ? [1, 's'] : since < 3600 ? [60, 'min'] : since < 172800 ? [3600, 'h'] : [86400, 'd'];
	return `${Math.floor(since / size)} ${unit} ago`;
}

function dateTime(seconds) { /* the browser's zone */
	const date = new Date(seconds * 1000);
	return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace('T', ' ');
}

const clockTime = (seconds) => dateTime(seconds).slice(11);

/* The end of a name says whose it is: long ones lose their middle. */
const shorten = (name) => (name.length <= NAME_MAX ? name : `${name.slice(0, 20)}…${name.slice(21 - NAME_MAX)}`);

/* --- elements --- */

function el(tag, attributes, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes))
		element.setAttribute(name, value);
	element.append(...children);
	return element;
}

function button(text, attributes, click) {
	const element = el('button', { type: 'button', ...attributes }, text);
	element.addEventListener('click', click);
	return element;
}

function set(element, text, style) {
	if (element.textContent !== text)
		element.textContent = text;
	if (style !== undefined && element.className !== style)
		element.className = style;
}

/* Make the children of @parent those of @items. What is known keeps its element, so that focus and selection survive. */
function keyed(parent, items, make, update) {
	const known = new Map([...parent.children].map((element) => [element.key, element]));
	const focused = document.activeElement;
	const wanted = new Set(items.map((item) => item.key));
	known.forEach((element, key) => wanted.has(key) || element.remove());
	let place = parent.firstElementChild;
	for (const item of items) {
		const element = known.get(item.key) || Object.assign(make(item), { key: item.key });
		update(element, item);
		if (element === place)
			place = place.nextElementSibling;
		else
			parent.insertBefore(element, place);
	}
	if (focused !== document.activeElement && parent.contains(focused))
		focused.focus({ preventScroll: true });
}

const sign = (text) => el('span', { class: 'sign', 'aria-hidden': 'true' }, text);

function setOutcome(element, kind) {
	const [mark, word, style] = outcomeOf(kind);
	if (element.kind !== kind)
		element.replaceChildren(el('span', { class: style }, sign(mark), ` ${word}`));
	element.kind = kind;
}

/* --- what the gateway tells --- */

async function ask(path) {
	const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MS) });
	if (!answer.ok)
		throw new Error(`HTTP ${answer.status}`);
	return answer.json();
}

const groupKey = (row) => [row.network || '', row.app || row.src, row.sni || row.name || row.qname || row.dst].join('\n');
const refusals = (row) => row.denied + row.audited;
const refusedAt = (row) => (refusals(row) ? row.last_denied || row.last_seen : 0);
const kindOf = (row) => (row.denied ? 'denied' : row.audited ? 'audit' : 'allowed');
const isNew = (group) => refusals(group) > 0 && group.first > now() - NEW_SECONDS;

function makeGroup(key, row) {
	return {
		key, network: row.network, app: row.app || row.src || 'all other apps', src: row.src, target: row.name || row.dst || 'all other destinations',
		rows: [], first: Infinity, last: 0, refused: 0, reason: null, allowed: 0, denied: 0, audited: 0, open: 0, bytes_out: 0, bytes_in: 0,
	};
}

function addToGroup(group, row) {
	for (const figure of ['allowed', 'denied', 'audited', 'open', 'bytes_out', 'bytes_in'])
		group[figure] += row[figure];
	group.rows.push(row);
	group.first = Math.min(group.first, row.first_seen || Infinity);
	group.last = Math.max(group.last, row.last_seen);
	if (refusedAt(row) > group.refused) {
		group.refused = refusedAt(row);
		group.reason = row.reason;
	}
}

function takeNetwork(network, groups) {
	for (const row of network.rows) {
		row.network = network.network;
		const key = groupKey(row);
		if (!groups.has(key))
			groups.set(key, makeGroup(key, row));
		addToGroup(groups.get(key), row);
	}
	const { rows, network: key, ...figures } = network;
	return { ...figures, key, apps: unique(rows.map((row) => row.app || row.src)).length, names: unique(rows.map((row) => row.name)).length };
}

function takeStats(answer) {
	const groups = new Map();
	const first = !model.networks.length;
	model.clock = answer.now - Date.now() / 1000;
	model.networks = answer.networks.map((network) => takeNetwork(network, groups)).sort((a, b) => !a.key - !b.key || a.key.localeCompare(b.key));
	for (const group of groups.values()) {
		const before = model.groups.get(group.key);
		if (!first && refusals(group) && !(before && refusals(before))) {
			model.newcomers++;
			model.newcomer = group;
		}
	}
	model.groups = groups;
}

function addLine(event) {
	model.lines.unshift({ key: ++model.lineNumber, network: event.network || '', event });
	model.lines.length = Math.min(model.lines.length, LINES_MAX);
}

async function readLog() {
	const before = model.lineNumber;
	const log = await ask(`api/log?lines=${LINES_MAX}`);
	const last = log.length ? log[log.length - 1].ts : '';
	const since = model.lines.filter((line) => line.key > before && line.event.ts > last).reverse();
	model.lines = [];
	log.forEach(addLine);
	since.forEach((line) => addLine(line.event));
	schedule();
}

const readLogIfPossible = () => readLog().catch(() => {}); /* the next look at the statistics says what is wrong */

/* --- the connection --- */

function received(message) {
	if (shown.paused) {
		shown.waiting++;
	} else {
		link.news = true;
		addLine(JSON.parse(message.data));
		lookIn(Math.max(RENDER_MS / 2, link.looked + Math.max(LOOK_MS, link.share) - performance.now()));
	}
	schedule();
}

function listen() {
	link.source = new EventSource('api/events');
	link.source.onopen = () => {
		link.streaming = true;
		link.refused = false;
		readLogIfPossible();
	};
	link.source.onmessage = received;
	link.source.onerror = () => { /* the next good answer brings a new one */
		link.refused = true;
		stopListening();
		lookIn(0);
	};
}

function stopListening() {
	if (link.source)
		link.source.close();
	link.source = null;
	link.streaming = false;
}

/* Look at the statistics after @milliseconds, or before if that is planned. */
function lookIn(milliseconds) {
	const due = performance.now() + milliseconds;
	if (document.hidden || link.asking || (link.timer && link.due <= due))
		return;
	clearTimeout(link.timer);
	link.due = due;
	link.timer = setTimeout(look, milliseconds);
}

async function lookOnce() {
	const answer = await ask('api/stats');
	link.share = LOOK_SHARE * (performance.now() - link.looked);
	link.reached = Date.now() / 1000;
	link.failures = 0;
	if (!shown.paused)
		takeStats(answer);
	if (!link.source && !document.hidden)
		listen();
	return Math.max(link.news ? LOOK_MS : IDLE_MS, link.share);
}

async function look() {
	let next;
	link.asking = true;
	link.news = false;
	link.looked = performance.now();
	try {
		next = await lookOnce();
	} catch (error) {
		link.trouble = /^HTTP/.test(error.message) ? `gateway answers ${error.message}` : 'gateway cannot be reached';
		link.since = link.failures++ ? link.since : Date.now() / 1000;
		next = Math.min(RETRY_MAX_MS, 500 * 2 ** Math.min(link.failures, 6));
	}
	link.asking = false;
	link.timer = null;
	lookIn(next);
	schedule();
}

function stateText() {
	if (link.failures)
		return ['✗ Not connected', 'no'];
	if (shown.paused)
		return ['❚❚ Paused', 'maybe'];
	if (link.streaming)
		return ['✓ Live', 'yes'];
	return link.refused ? [`△ Every ${IDLE_MS / 1000} s`, 'maybe'] : ['… Connecting', 'quiet'];
}

function renderState() {
	set($('#state'), ...stateText());
	set($('#waiting'), shown.waiting ? `${count(shown.waiting)} waiting` : '');
	$('#banner').hidden = !link.failures;
	set($('#banner'), !link.failures ? '' : `✗ The ${link.trouble} since ${clockTime(link.since)}. ` +
		(link.reached ? `What you see is from ${clockTime(link.reached)}. ` : '') + 'Trying again…');
}

/* --- the filter --- */

function hayOf(item) {
	const parts = item.event ? [...Object.values(item.event), outcomeOf(item.event.event)[1], reasonText(item.event.reason)] :
		[item.network, item.app, item.src, item.target, outcomeOf(kindOf(item))[1], isNew(item) ? 'new' : '',
			...item.rows.flatMap((row) => [row.dst, portText(row), row.reason, reasonText(row.reason)])];
	return parts.join(' ').toLowerCase();
}

function passes(item) {
	if (shown.network !== null && item.network !== shown.network)
		return false;
	if (shown.words.length)
		item.hay = item.hay || hayOf(item);
	return shown.words.every((word) => item.hay.includes(word));
}

const groups = () => [...model.groups.values()].filter(passes);

/* --- the networks --- */

function makeNetwork({ key }) {
	const name = button(networkText(key), { class: 'name' }, () => {
		shown.network = shown.network === key ? null : key;
		render();
	});
	const figures = ['✗ denied', '△ let pass', '✓ allowed'].map((word) => el('span', {}, sign(word[0]), el('b', {}), word.slice(1)));
	return el('li', {}, el('span', {}, name), el('span', {}), ...figures, el('span', { class: 'quiet' }), el('span', { class: 'quiet' }),
		button('Suggest rules', {}, () => openSuggestion(key)));
}

function updateFigure(element, number, style) {
	set(element.children[1], count(number));
	element.className = number ? style : 'quiet';
}

function updateNetwork(element, network) {
	const [name, mode, denied, audited, allowed, who, traffic, suggest] = element.children;
	const audit = network.mode === 'audit';
	name.firstChild.setAttribute('aria-pressed', String(shown.network === network.key));
	set(mode, audit ? '△ audit' : network.mode ? '✓ enforce' : '', audit ? 'maybe' : 'yes');
	updateFigure(denied, network.denied, 'no');
	updateFigure(audited, network.audited, 'maybe');
	updateFigure(allowed, network.allowed, 'yes');
	audited.hidden = !audit && !network.audited;
	set(who, `${many(network.apps, 'app')}, ${many(network.names, 'name')}, ${count(network.open)} open`);
	set(traffic, `${bytes(network.bytes_out)} sent, ${bytes(network.bytes_in)} received`);
	suggest.hidden = !audit;
}

/* --- the lists: a column has a heading, a class, what fills its cell, and perhaps what it sorts by --- */

const text = (value) => (cell, item) => set(cell, value(item));

function fillOutcome(cell, item) {
	setOutcome(cell, item.event ? item.event.event : kindOf(item));
}

function fillApp(cell, { app, network, event }) {
	const name = event ? event.app || event.src || '' : app;
	if (!cell.firstChild && (name || network))
		cell.append(el('bdi', { title: name }, shorten(name || 'several')), ' ', el('span', { class: 'quiet' }, networkText(network)));
}

function targetButton(key, name) {
	return button(shorten(name), { class: 'target', title: name }, () => openGroup(key));
}

function portsOf(rows) {
	const ports = unique(rows.map(portText));
	return ports.slice(0, 3).join(', ') + (ports.length > 3 ? ` and ${ports.length - 3} more` : '');
}

const fillTarget = (rows) => (cell, group) => {
	if (!cell.firstChild)
		cell.append(targetButton(group.key, group.target), ' ', el('span', { class: 'quiet' }), ' ', el('span', { class: 'fresh' }, 'new'));
	cell.lastChild.hidden = !isNew(group);
	set(cell.children[1], portsOf(group.rows.filter(rows)));
};

function fillLineTarget(cell, { event }) {
	if (cell.firstChild)
		return;
	const sum = event.what || !event.network;
	const name = sum ? `${count(event.count || 0)} ${event.what || 'lines'}` : event.sni || event.name || event.qname || event.dst || 'no name';
	cell.append(!sum && event.event !== 'inbound' ? targetButton(groupKey(event), name) : el('bdi', { title: name }, shorten(name)), ' ',
		el('span', { class: 'quiet' }, event.qtype ? `DNS ${event.qtype}` : portText(event)));
}

function lineDetails({ event }) {
	if (event.event === 'ended')
		return `${bytes(event.bytes_out)} sent, ${bytes(event.bytes_in)} received${Number.isFinite(event.duration) ? `, ${(event.duration / 1000).toFixed(1)} s` : ''}`;
	if (event.published)
		return `from outside, port ${event.published}`;
	return [reasonText(event.reason), event.action === 'allowed' ? '' : event.action].filter(Boolean).join(', ');
}

const fillAge = (seconds) => (cell, group) => {
	set(cell, seconds(group) ? age(seconds(group)) : '–');
	cell.title = dateTime(seconds(group));
};

function figureColumn(label, value, format, kind = () => ['', '', '']) {
	const fill = (cell, group) => {
		const [mark, , style] = value(group) ? kind(group) : ['', '', 'quiet'];
		set(cell, `${mark} ${format(value(group))}`, `number ${style}`);
	};
	return [label, 'number', fill, value];
}

/* While somebody points at the list nothing in it moves away; what is new comes on top. */
function newestFirst(list) {
	list.sort((a, b) => b.refused - a.refused || (a.key < b.key ? -1 : 1));
	if (!matchMedia('(hover: hover)').matches || !$('tbody').matches(':hover'))
		return list;
	const places = new Map([...$('tbody').children].map((element, index) => [element.key, index]));
	const place = (group) => (places.has(group.key) ? places.get(group.key) : -1);
	return list.sort((a, b) => place(a) - place(b));
}

function sorted(list) {
	const value = shown.sort;
	const compare = (a, b) => (typeof a === 'string' ? a.localeCompare(b) : a - b);
	return list.sort((a, b) => (shown.up ? 1 : -1) * compare(value(a), value(b)) || b.last - a.last || (a.key < b.key ? -1 : 1));
}

const lastSeen = (group) => group.last;
const views = {
	denied: {
		title: 'What was denied, the newest first',
		nothing: 'Nothing was denied yet.',
		items: () => newestFirst(groups().filter(refusals)),
		columns: [
			['Outcome', 'outcome', fillOutcome],
			['App, network', 'app', fillApp],
			['Destination', 'to', fillTarget(refusals)],
			['Why', 'why', text((group) => reasonText(group.reason))],
			['Times', 'number times', text((group) => `${count(refusals(group))} ×`)],
			['Last', 'number last', fillAge((group) => group.refused)],
		],
	},
	apps: {
		title: 'Every app, and where it went or tried to go',
		nothing: 'No app was seen yet.',
		items: () => sorted(groups()),
		columns: [
			['App, network', 'app', fillApp, (group) => `${group.app}\n${group.target}`],
			['Name or address', 'to', fillTarget(() => true), (group) => group.target],
			figureColumn('Denied', refusals, count, (group) => outcomeOf(kindOf(group))),
			figureColumn('Allowed', (group) => group.allowed, count, () => outcomeOf('allowed')),
			figureColumn('Open', (group) => group.open, count),
			figureColumn('Sent', (group) => group.bytes_out, bytes),
			figureColumn('Received', (group) => group.bytes_in, bytes),
			['Last seen', 'number', fillAge(lastSeen), lastSeen],
		],
	},
	live: {
		title: 'The last decisions, the newest first',
		nothing: 'Nothing has happened yet.',
		items: () => model.lines.filter(passes),
		columns: [
			['Time', 'time', text(({ event }) => (event.ts ? clockTime(Date.parse(event.ts) / 1000) : ''))],
			['Outcome', 'outcome', fillOutcome],
			['App, network', 'app', fillApp],
			['Destination', 'to', fillLineTarget],
			['Details', 'why', text(lineDetails)],
		],
	},
};

function makeRow() {
	return el('tr', {}, ...shown.view.columns.map(([label, style]) => el('td', { class: style, 'data-label': label })));
}

function updateRow(row, item) {
	shown.view.columns.forEach(([, , fill], index) => fill(row.children[index], item));
	row.classList.toggle('chosen', panel.key === item.key);
}

function renderList() {
	const { view, limit } = shown;
	const items = view.items();
	const rest = items.length - limit;
	keyed($('tbody'), items.slice(0, limit), makeRow, updateRow);
	$('table').hidden = !items.length;
	$('#empty').hidden = items.length > 0 || !link.reached;
	set($('#empty'), shown.words.length || shown.network !== null ? 'Nothing matches the filter.' : view.nothing);
	$('#more').hidden = rest <= 0;
	set($('#more span'), `${count(rest)} more${limit < ROWS_MAX ? '.' : ': use the filter.'}`);
	$('#more button').hidden = limit >= ROWS_MAX;
}

function makeHeading([label, style, , value]) {
	const heading = el('th', { scope: 'col', class: style }, label);
	if (value) {
		const up = value === shown.sort && shown.up;
		const direction = value !== shown.sort ? '' : up ? '▲' : '▼';
		heading.setAttribute('aria-sort', value !== shown.sort ? 'none' : up ? 'ascending' : 'descending');
		heading.replaceChildren(button(label, {}, () => {
			shown.up = value === shown.sort ? !shown.up : style !== 'number';
			shown.sort = value;
			renderHeadings();
			$('[aria-sort$=ending] button').focus();
			render();
		}));
		heading.firstChild.append(' ', sign(direction));
	}
	return heading;
}

function renderHeadings() {
	$('thead tr').replaceChildren(...shown.view.columns.map(makeHeading));
}

function showView() {
	const name = Object.hasOwn(views, location.hash.slice(1)) ? location.hash.slice(1) : 'denied';
	if (shown.view === views[name])
		return;
	Object.assign(shown, { view: views[name], limit: ROWS_STEP });
	for (const tab of document.querySelectorAll('nav a'))
		tab.setAttribute('aria-current', tab.hash === `#${name}` ? 'page' : 'false');
	$('table').className = name;
	$('table').setAttribute('aria-label', shown.view.title);
	$('tbody').replaceChildren();
	renderHeadings();
	render();
}

/* --- the panel --- */

function openPanel(key, title, update, ...children) {
	Object.assign(panel, { key, opener: document.activeElement, update, asked: panel.asked + 1 });
	set($('#panel-title'), title);
	$('#panel div').replaceChildren(...children);
	if (!$('#panel').open)
		$('#panel')[matchMedia('(min-width: 64rem)').matches ? 'show' : 'showModal']();
	document.body.classList.add('with-panel');
	$('#panel-title').focus();
	$('#panel').scrollTop = 0;
	render();
}

function panelClosed() {
	const back = panel.opener !== document.body && panel.opener.isConnected ? panel.opener : $('nav a');
	Object.assign(panel, { key: null, opener: null, update: null });
	document.body.classList.remove('with-panel');
	back.focus({ preventScroll: true });
	render();
}

/* Browsers give their clipboard to secure origins only, and the gateway speaks plain HTTP. */
async function copyText(element) {
	try {
		await navigator.clipboard.writeText(element.textContent);
		return true;
	} catch {
		getSelection().selectAllChildren(element);
		return document.execCommand('copy');
	}
}

function copyBlock(rule, label) {
	const code = el('code', {}, rule);
	const result = el('span', { class: 'quiet', role: 'status' });
	const copy = button('Copy', { 'aria-label': `Copy ${label}` }, async () => set(result, await copyText(code) ? '✓ Copied' : 'Selected: press Ctrl+C'));
	return el('div', { class: 'block' }, el('pre', { tabindex: 0 }, code), el('p', {}, copy, ' ', result));
}

/* Show in @place what @path answers, unless something else was asked for in the meantime. */
async function showAnswer(place, path, nodes) {
	const mine = ++panel.asked;
	let children;
	set(place, 'Asking the gateway…');
	try {
		const answer = await ask(path);
		children = answer.ok ? nodes(answer) : [el('p', {}, answer.error)];
	} catch (error) {
		children = [el('p', { class: 'no' }, `✗ The gateway did not answer (${error.message}).`)];
	}
	if (mine === panel.asked)
		place.replaceChildren(...children);
}

function adviceNodes({ section, line, change, opens, note }) {
	return [
		...(change ? [el('p', {}, `To change first: ${change}`)] : []),
		...(line ? [el('p', {}, 'Below ', el('code', {}, `[${section}]`), ' of the policy:'), copyBlock(line, 'the rule')] : []),
		...(opens ? [el('p', {}, el('b', {}, 'What that opens: '), opens)] : []),
		...(note ? [el('p', {}, note)] : []),
	];
}

function query(values) {
	return new URLSearchParams(Object.entries(values).filter(([, value]) => value));
}

function explain(place, row) {
	const { network, name, dst: address, port, reason } = row;
	const advice = el('div', {});
	const decided = row.rule && row.rule !== 'default' ? ['It was decided by ', el('code', {}, row.rule), '.'] : [];
	place.replaceChildren(el('h3', {}, 'Why'), el('p', {}, reasonText(reason, 1), ' ', ...decided), el('h3', {}, 'To allow it'), advice,
		el('p', { class: 'quiet' }, 'The app chose this destination. Allow it only if you know why the app needs it.'));
	showAnswer(advice, `api/advise?${query({ network, name, address, port, proto: row.proto === 'dns' ? null : row.proto, reason })}`, adviceNodes);
}

/* One app and destination, several ports: each has a reason and a rule of its own. */
function variantsOf(group) {
	return group.rows.filter(refusals).sort((a, b) => refusedAt(b) - refusedAt(a)).slice(0, VARIANTS_MAX);
}

function explainVariants(group, place) {
	const rows = variantsOf(group);
	const why = el('div', {});
	if (!rows.length)
		return;
	const select = el('select', {}, ...rows.map((row, index) => el('option', { value: index },
		`${portText(row) || 'no port'}: ${reasonText(row.reason)}, ${many(refusals(row), 'time')}`)));
	select.addEventListener('change', () => explain(why, rows[select.value]));
	place.append(...(rows.length > 1 ? [el('label', {}, 'What was tried ', select)] : []), why);
	explain(why, rows[0]);
}

const seen = (seconds) => (seconds && seconds < Infinity ? `${dateTime(seconds)}, ${age(seconds)}` : '–');

function factsOf(group) {
	const [mark, word] = outcomeOf(kindOf(group));
	return [
		['Outcome', `${mark} ${word}${refusals(group) ? `, ${many(refusals(group), 'time')}` : ''}`],
		['App', unique([group.app, group.src, networkText(group.network)]).join(', ')],
		['Addresses', unique(group.rows.map((row) => row.dst)).slice(0, 8).join(', ') || '–'],
		['First seen', seen(group.first)],
		['Last seen', seen(group.last)],
		['Allowed', `${many(group.allowed, 'flow')}, ${count(group.open)} open`],
		['Traffic', `${bytes(group.bytes_out)} sent, ${bytes(group.bytes_in)} received`],
	];
}

function openGroup(key) {
	const group = model.groups.get(key);
	if (!group)
		return;
	const why = el('div', {});
	const values = factsOf(group).map(() => el('dd', {}));
	const facts = el('dl', {}, ...factsOf(group).flatMap(([name], index) => [el('dt', {}, name), values[index]]));
	const update = () => factsOf(model.groups.get(key) || group).forEach(([, value], index) => set(values[index], value));
	openPanel(key, group.target, update, why, el('h3', {}, 'Facts'), facts);
	explainVariants(group, why);
}

/* Nothing that an app chose begins a line of the policy. */
const oneLine = (line) => line.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, '?');

function ruleLine({ rule, flows, questions, apps, more_apps: more, chain, note, known_as: known }) {
	const comment = [flows ? many(flows, 'flow') : many(questions, 'question'), `${apps.join(' ')}${more ? ' and others' : ''}`,
		chain.length ? `through ${chain.join(', ')}` : '', known ? `known as ${known} elsewhere` : '', note].filter(Boolean).join('; ');
	return `${oneLine(`; ${comment}`)}\n${oneLine(`allow = ${rule}`)}`;
}

function suggestionNodes(answer) {
	return answer.networks.flatMap(({ network, rules, wildcards, skipped }) => [
		...(rules.length ? [el('p', {}, 'What was seen, as rules. Read them, then copy them below ', el('code', {}, `[network ${network}]`), ':'),
			copyBlock(rules.map(ruleLine).join('\n'), 'the rules')] : [el('p', {}, 'Nothing was seen yet that a rule could allow.')]),
		...(wildcards.length ? [el('h3', {}, 'Shorter, but they open more')] : []),
		...wildcards.flatMap(({ rule, names }) => [el('p', {}, `Instead of ${many(names.length, 'name')}: ${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}`),
			copyBlock(oneLine(`allow = ${rule}`), rule)]),
		...(skipped.length ? [el('h3', {}, 'Left out'), el('ul', {}, ...skipped.map(({ what, why }) => el('li', {}, `${what}: ${why}`)))] : []),
		el('p', { class: 'quiet' }, 'When the policy has them and nothing more turns up: mode = enforce.'),
	]);
}

function openSuggestion(network) {
	const place = el('div', {});
	openPanel(null, `Rules for network ${network}`, null, place);
	showAnswer(place, `api/suggest?${query({ network })}`, suggestionNodes);
}

/* --- rendering --- */

function announce() {
	const last = model.newcomer;
	if (!model.newcomers || performance.now() < drawn.announced + ANNOUNCE_MS)
		return;
	set($('#announce'), `${many(model.newcomers, 'new denial')}. The last: ${last.app} to ${last.target}, ${reasonText(last.reason)}.`);
	drawn.announced = performance.now();
	model.newcomers = 0;
}

function render() {
	drawn.last = performance.now();
	if (document.hidden)
		return;
	const [denied, apps] = document.querySelectorAll('nav span');
	renderState();
	keyed($('#networks'), model.networks, makeNetwork, updateNetwork);
	set(denied, count(groups().filter(refusals).length));
	set(apps, count(groups().length));
	renderList();
	if (panel.update)
		panel.update();
	announce();
}

function schedule() {
	drawn.timer = drawn.timer || setTimeout(() => {
		drawn.timer = null;
		render();
	}, Math.max(0, drawn.last + RENDER_MS - performance.now()));
}

/* --- what people do --- */

function pause() {
	shown.paused = !shown.paused;
	shown.waiting = 0;
	set($('#pause'), shown.paused ? 'Resume' : 'Pause');
	if (!shown.paused) {
		readLogIfPossible();
		lookIn(0);
	}
	render();
}

/* Browsers open few connections to a server: a page that nobody sees needs none. */
function hideOrShow() {
	if (document.hidden) {
		stopListening();
		clearTimeout(link.timer);
		link.timer = null;
	} else {
		lookIn(0);
		schedule();
	}
}

function listKey(event) {
	const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
	const targets = [...$('tbody').querySelectorAll('.target')];
	const next = targets[targets.indexOf(event.target) + step];
	if (next) {
		next.focus();
		event.preventDefault();
	}
}

function start() {
	const close = () => $('#panel').close();
	shown.sort = lastSeen;
	$('#pause').onclick = pause;
	$('#filter').oninput = () => {
		shown.words = $('#filter').value.toLowerCase().split(/\s+/).filter(Boolean);
		schedule();
	};
	$('#more button').onclick = () => {
		shown.limit = Math.min(ROWS_MAX, shown.limit + ROWS_STEP);
		render();
	};
	$('tbody').onkeydown = listKey;
	$('#panel').onclose = panelClosed;
	$('#close').onclick = close;
	document.addEventListener('keydown', (event) => { /* a dialog that is not modal does not do that by itself */
		if (event.key === 'Escape')
			close();
	});
	document.onvisibilitychange = hideOrShow;
	onhashchange = showView;
	setInterval(schedule, IDLE_MS);
	showView();
	look();
}

start();
}());
