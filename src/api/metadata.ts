import * as z from 'zod';

/** The metadata of a stored object, as far as weft reads it. */
export const StoredMetadata = z.object({
  name: z.string(),
  uid: z.string(),
  resourceVersion: z.string(),
  creationTimestamp: z.string(),
  deletionTimestamp: z.string().optional(),
  generation: z.number().optional(),
  finalizers: z.array(z.string()).default([]),
  annotations: z.record(z.string(), z.string()).default({}),
});
export type StoredMetadata = z.output<typeof StoredMetadata>;

/** One condition of a status, as Kubernetes' API conventions define it. */
export const Condition = z.object({
  type: z.string().min(1).max(316),
  status: z.enum(['True', 'False', 'Unknown']),
  reason: z.string().min(1).max(1024),
  message: z.string().max(32_768),
  lastTransitionTime: z.iso.datetime({ offset: true }),
  observedGeneration: z.int().optional(),
});
export type Condition = z.output<typeof Condition>;
