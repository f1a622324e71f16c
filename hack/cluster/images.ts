import { createHash } from 'node:crypto';
import { access, copyFile, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { PAUSE_IMAGE, TEST_IMAGE } from './node-config.ts';

export const COREDNS_IMAGE = 'localhost/weft-coredns:1';

/**
 * An OCI archive, made without a registry or an engine, with three images: the sandbox and the test image
 * (busybox; the test image serves an echo on TCP 7 and HTTP on 8080, see SERVE) and CoreDNS. It is kept beside
 * the binaries, named by what it is made from, and answered by its path.
 */
export async function ensureImages(binaries: string): Promise<string> {
  const recipe = createHash('sha256').update(await readFile(import.meta.filename));
  const archive = join(binaries, `images-${recipe.digest('hex').slice(0, 16)}.tar`);
  if (await exists(archive)) return archive;
  const directory = await mkdtemp(join(binaries, '.images-'));
  try {
    await writeImages(join(directory, 'images.tar'), directory, join(binaries, 'coredns'));
    await rename(join(directory, 'images.tar'), archive);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return archive;
}

async function writeImages(archive: string, directory: string, coredns: string): Promise<void> {
  const layout = join(directory, 'layout');
  await mkdir(join(layout, 'blobs', 'sha256'), { recursive: true });
  const busybox = await layerOf(layout, join(directory, 'busybox'), fillBusybox);
  const dns = await layerOf(layout, join(directory, 'coredns'), async (root) => {
    await copyFile(coredns, join(root, 'coredns'));
  });
  const images = await Promise.all([
    imageOf(layout, PAUSE_IMAGE, busybox, { Cmd: ['/bin/sleep', '2147483647'] }),
    imageOf(layout, TEST_IMAGE, busybox, { Cmd: ['/serve'], Env: ['PATH=/bin'] }),
    imageOf(layout, COREDNS_IMAGE, dns, { Entrypoint: ['/coredns'] }),
  ]);
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: images };
  await writeFile(join(layout, 'index.json'), JSON.stringify(index));
  await writeFile(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await execa('tar', ['-cf', archive, '-C', layout, 'oci-layout', 'index.json', 'blobs']);
}

/**
 * The test image's process. As the first of its PID namespace it would not end on SIGTERM without a handler.
 * /cgi-bin/source answers the address that the request came from, /cgi-bin/name the host name. busybox-static resolves
 * names with nslookup alone: give wget and nc addresses.
 */
const SERVE = `#!/bin/sh
trap 'exit 0' TERM INT
nc -ll -p 7 -e /bin/cat &
httpd -f -p 8080 -h /www &
wait
`;

const PAGES = {
  // httpd writes addresses of both families as IPv6, in brackets.
  source: `echo "$REMOTE_ADDR" | sed -e 's/^\\[//' -e 's/]$//' -e 's/^::ffff://'`,
  name: 'hostname',
};

/** What busybox httpd serves in the test image, and on the address outside the cluster. */
export async function writePages(directory: string): Promise<void> {
  await mkdir(join(directory, 'cgi-bin'), { recursive: true });
  await writeFile(join(directory, 'index.html'), 'weft\n');
  for (const [name, command] of Object.entries(PAGES)) {
    const page = `#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n${command}\n`;
    await writeFile(join(directory, 'cgi-bin', name), page, { mode: 0o755 });
  }
}

async function fillBusybox(root: string): Promise<void> {
  for (const folder of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root']) {
    await mkdir(join(root, folder), { recursive: true });
  }
  await copyFile('/bin/busybox', join(root, 'bin', 'busybox'));
  const { stdout } = await execa('busybox', ['--list']);
  for (const applet of stdout.split('\n')) {
    if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
  }
  await writeFile(join(root, 'etc', 'passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(join(root, 'etc', 'group'), 'root:x:0:\n');
  await writeFile(join(root, 'serve'), SERVE, { mode: 0o755 });
  await writePages(join(root, 'www'));
}

type Descriptor = { readonly mediaType: string; readonly digest: string; readonly size: number };

async function layerOf(
  layout: string,
  root: string,
  fill: (root: string) => Promise<void>,
): Promise<Descriptor> {
  await mkdir(root, { recursive: true });
  await fill(root);
  const file = `${root}.tar`;
  const owner = ['--owner=0', '--group=0', '--numeric-owner', '--sort=name', '--mtime=@0'];
  await execa('tar', [...owner, '-cf', file, '-C', root, '.']);
  return blobOf(layout, 'application/vnd.oci.image.layer.v1.tar', await readFile(file));
}

/** Stores manifest and configuration; the layer is not compressed, so its digest is its content's too. */
async function imageOf(
  layout: string,
  reference: string,
  layer: Descriptor,
  config: object,
): Promise<Descriptor & { readonly annotations: object }> {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const configuration = await blobOf(
    layout,
    'application/vnd.oci.image.config.v1+json',
    Buffer.from(
      JSON.stringify({
        architecture,
        os: 'linux',
        config: { WorkingDir: '/', ...config },
        rootfs: { type: 'layers', diff_ids: [layer.digest] },
      }),
    ),
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = { schemaVersion: 2, mediaType, config: configuration, layers: [layer] };
  const stored = await blobOf(layout, mediaType, Buffer.from(JSON.stringify(manifest)));
  const annotations = {
    'io.containerd.image.name': reference,
    'org.opencontainers.image.ref.name': reference,
  };
  return { ...stored, annotations };
}

async function blobOf(layout: string, mediaType: string, content: Buffer): Promise<Descriptor> {
  const hash = createHash('sha256').update(content).digest('hex');
  await writeFile(join(layout, 'blobs', 'sha256', hash), content);
  return { mediaType, digest: `sha256:${hash}`, size: content.length };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
