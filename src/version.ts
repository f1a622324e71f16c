/** The version of all of weft's parts, equal to that of package.json: a bundle has no package.json beside it. */
export const VERSION = '0.1.0';
