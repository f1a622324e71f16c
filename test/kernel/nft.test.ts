import { describe, expect, test } from 'vitest';
import {
  applyNft,
  CommandError,
  createCommandRunner,
  listNftTable,
  parseNft,
  readNftTable,
  type NftTable,
} from '../../src/kernel/index.ts';
import { useThrowaways } from './throwaway.ts';

const { make } = useThrowaways();
const host = make('host');
const table: NftTable = { family: 'inet', name: 'weft' };
const transaction = `
table inet weft
delete table inet weft
table inet weft {
  set nodes { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip saddr @nodes counter accept
  }
  chain output {
    type filter hook output priority 0; policy accept;
    counter accept
  }
}`;

describe('applying', () => {
  test('a text, twice the same', async () => {
    await applyNft(host.run, transaction);
    await applyNft(host.run, transaction);
    expect(host.sh('nft list table inet weft')).toContain('ip saddr @nodes counter');
  });

  test('a document of commands', async () => {
    await applyNft(host.run, {
      nftables: [
        { add: { table: { family: 'ip', name: 'other' } } },
        { add: { chain: { family: 'ip', table: 'other', name: 'c' } } },
      ],
    });
    expect(host.sh('nft list table ip other')).toContain('chain c');
  });

  test('data in a document stays data', async () => {
    const comment = 'x"; flush ruleset; #';
    await applyNft(host.run, {
      nftables: [
        { add: { rule: { family: 'ip', table: 'other', chain: 'c', comment, expr: [{ accept: null }] } } },
      ],
    });
    expect(host.sh('nft list ruleset')).toContain('table inet weft');
  });

  test('all or nothing, and the error says what nft says', async () => {
    const outcome = applyNft(host.run, 'add table ip half\nadd rule ip half nowhere accept\n');
    await expect(outcome).rejects.toBeInstanceOf(CommandError);
    await expect(outcome).rejects.toThrow(/^nft -f -: .*No such file or directory/);
    expect(host.sh('nft list tables')).not.toContain('half');
  });

  test('foreign tables stay', async () => {
    host.sh('nft add table ip foreign');
    await applyNft(host.run, transaction);
    expect(host.sh('nft list tables')).toContain('table ip foreign');
  });
});

const hashOf = async (of: NftTable) => (await readNftTable(host.run, of))?.hash;

describe('the hash of a table', () => {
  test('is the same as long as nobody changes it, also while counters count', async () => {
    await applyNft(host.run, transaction);
    const hash = await hashOf(table);
    expect(hash).toMatch(/^[0-9a-f]{64}$/);
    host.sh('ping -c 2 -i 0.1 127.0.0.1');
    expect(host.sh('nft list chain inet weft output')).toMatch(/packets [1-9]/);
    expect(await hashOf(table)).toBe(hash);
  });

  test.each([
    ['an element', 'nft add element inet weft nodes { 192.0.2.9 }'],
    ['a rule', 'nft add rule inet weft forward drop'],
    ['a flush', 'nft flush table inet weft'],
    ['a policy', "nft 'chain inet weft forward { policy drop; }'"],
  ])('changes with %s', async (_, command) => {
    await applyNft(host.run, transaction);
    const hash = await hashOf(table);
    host.sh(command);
    expect(await hashOf(table)).not.toBe(hash);
  });

  test('does not depend on the elements of sets that are read apart', async () => {
    await applyNft(host.run, transaction);
    const read = () => readNftTable(host.run, table, { apart: ['nodes'] });
    const before = await read();
    expect(new Set(before?.elements.get('nodes'))).toEqual(new Set(['192.0.2.1', '192.0.2.2']));
    host.sh('nft delete element inet weft nodes { 192.0.2.1 }');
    const after = await read();
    expect(after?.hash).toBe(before?.hash);
    expect(after?.elements.get('nodes')).toEqual(['192.0.2.2']);
    host.sh('nft flush set inet weft nodes');
    expect((await read())?.elements.get('nodes')).toEqual([]);
    host.sh('nft add rule inet weft forward drop');
    expect((await read())?.hash).not.toBe(before?.hash);
  });

  test('does not depend on other tables', async () => {
    await applyNft(host.run, transaction);
    const hash = await hashOf(table);
    host.sh('nft add table ip foreign2');
    expect(await hashOf(table)).toBe(hash);
  });

  test('of a table that is gone is undefined, and so is its listing', async () => {
    host.sh('nft delete table inet weft');
    expect(await hashOf(table)).toBeUndefined();
    expect(await listNftTable(host.run, table)).toBeUndefined();
  });
});

test('a listing is read as a list of objects', async () => {
  await applyNft(host.run, transaction);
  const listing = await listNftTable(host.run, table);
  expect(listing?.nftables.map((entry) => Object.keys(entry)[0])).toEqual([
    'metainfo',
    'table',
    'set',
    'chain',
    'chain',
    'rule',
    'rule',
  ]);
});

test('output that is no listing is refused', () => {
  expect(() => parseNft('{"nftables": 5}')).toThrow();
});

describe('running programs', () => {
  test('one that is not there, one that fails, one that hangs', async () => {
    const run = createCommandRunner({ timeoutMs: 200 });
    await expect(run('no-such-program', [])).rejects.toMatchObject({
      name: 'CommandError',
      exitCode: undefined,
    });
    await expect(run('sh', ['-c', 'echo broken >&2; exit 3'])).rejects.toMatchObject({
      exitCode: 3,
      message: 'sh -c echo broken >&2; exit 3: broken',
    });
    await expect(run('sleep', ['5'])).rejects.toThrow(/sleep 5: .*timed out/i);
  });

  test('it gets its input, and nothing of our environment', async () => {
    process.env.WEFT_SECRET = 'x';
    expect(await createCommandRunner()('sh', ['-c', 'cat; env | sort'], 'input\n')).toBe(
      `input\nLC_ALL=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=${process.cwd()}\n`,
    );
  });
});
